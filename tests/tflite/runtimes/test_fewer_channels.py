"""Networks with fewer channels, for predictions."""

import pytest

from edgesparse.delegate.constants import CPUS
from edgesparse.tflite.runtimes.delegated import read_network, times
from edgesparse.tflite.runtimes.fewer_channels import _macs, thinned
from tests.tools.int8_model import Zeros
from tests.tools.sparse_networks import NETWORKS


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "ds_cnn"])
def test_a_share_of_the_products_stays(name):
    network = read_network(NETWORKS[name](Zeros()))
    smaller = thinned(network, macs=0.4)
    assert _macs(smaller) / _macs(network) == pytest.approx(0.4, abs=0.1)
    first, last = smaller.nodes[0].layer, smaller.nodes[-1].layer
    assert first.inputs == network.nodes[0].layer.inputs
    assert last.outputs == network.nodes[-1].layer.outputs
    assert last.inputs < network.nodes[-1].layer.inputs
    cpu = CPUS["dotprod"]
    assert 1.2 < times(network, cpu).total_dense / times(smaller, cpu).total_dense < 2.6


def test_widths_are_multiples():
    network = thinned(read_network(NETWORKS["resnet8"](Zeros())), width=0.5)
    widths = [node.layer.outputs for node in network.nodes if node.op == "CONV_2D"]
    assert all(width % 2 == 0 for width in widths)
    assert min(widths) == 8
    network = read_network(NETWORKS["mobilenet_v1"](Zeros()))
    for multiple in (4, 16):
        smaller = thinned(network, macs=0.45, multiple=multiple)
        wide = {n.layer.outputs for n in smaller.nodes[1:-3]} - {smaller.nodes[0].layer.outputs}
        assert all(width % multiple == 0 for width in wide)
