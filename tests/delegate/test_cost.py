"""The cost model of the delegate: fixed numbers, and ratios that were measured."""

import pytest

from edgesparse.delegate.constants import CPUS
from edgesparse.delegate.cost import (
    Layer,
    best_rows,
    cpu_of,
    delegate_counts,
    dense_counts,
    kept_shares,
    time_of,
)
from edgesparse.tflite.runtimes.delegated import claim, read_network, times
from tests.tools.int8_model import Zeros
from tests.tools.sparse_networks import NETWORKS

VNNI = ["avx2", "avx512_vnni", "avx512f", "avx512dq", "avx512bw", "avx512vl"]


def test_a_cpu_has_the_constants_of_the_kernels_that_it_runs():
    assert cpu_of("x86_64", VNNI) is CPUS["avx512vnni"]
    assert cpu_of("x86_64", [*VNNI, "amx_int8"]) is CPUS["amx"]
    assert cpu_of("x86_64", ["avx2", "avx_vnni"]) is CPUS["avxvnni"]
    assert cpu_of("x86_64", ["avx2", "avx512f"]) is CPUS["avx2"]
    assert cpu_of("x86_64", ["sse4_2"]) is None
    assert cpu_of("aarch64", ["asimddp"]) is CPUS["dotprod"]
    assert cpu_of("aarch64", []) is CPUS["neon"]
    assert cpu_of("armv7l", []) is None


def test_blocks_that_stay_follow_from_the_pattern():
    # A block of the delegate is empty where all patterns in it are.
    assert kept_shares(0.9, (1, 1)) == pytest.approx({1: 1 - 0.9**4, 2: 1 - 0.9**8, 4: 1 - 0.9**16})
    assert kept_shares(0.8, (2, 4)) == pytest.approx({1: 0.2, 2: 0.2, 4: 1 - 0.8**2})
    assert kept_shares(0.8, (1, 16)) == pytest.approx({1: 0.2, 2: 1 - 0.8**2, 4: 1 - 0.8**4})
    assert kept_shares(0.8, (4, 4)) == pytest.approx({1: 0.2, 2: 0.2, 4: 0.2})
    assert kept_shares(0.0, (2, 4)) == {1: 1, 2: 1, 4: 1}


def test_products_and_blocks_are_counted():
    cpu = CPUS["avx512vnni"]
    layer = Layer("CONV_2D", 64, 64, (14, 14), kept=kept_shares(0.75, (2, 4)))
    assert dense_counts(layer, cpu)["product"] == 64 * 64 * 196
    assert best_rows(cpu, layer) == 2
    counts = delegate_counts(layer, cpu)
    # 13 vectors of 16 pixels; a quarter of 32 x 16 blocks of 2 x 4.
    assert counts == {"node": 1, "block2": 128 * 13, "result": 64 * 13, "weight": 128 * 8}
    window = Layer("CONV_2D", 3, 8, (5, 5), kernel=(3, 3), kept=kept_shares(0.0, (1, 1)))
    counts = delegate_counts(window, cpu)
    assert counts["spread"] == 4 * 7 * 7
    assert counts["compact"] == 8 * 25
    assert counts["block1" if best_rows(cpu, window) == 1 else "block4"] > 0
    assert time_of([{"a": 2, "b": 3}], {"a": 1.5}) == 3


@pytest.mark.parametrize(
    ("isa", "network", "zeros", "measured"),
    [
        # AMD EPYC with AVX-512 VNNI: tests/tools/delegate_cost.py.
        ("avx512vnni", "mobilenet_v1", Zeros(0.8, (2, 4)), 4.2),
        ("avx512vnni", "mobilenet_v1", Zeros(0.9, (2, 4)), 5.4),
        ("avx512vnni", "mobilenet_v1", Zeros(0.8, (1, 4)), 3.6),
        ("avx512vnni", "mobilenet_v2", Zeros(0.8, (2, 4)), 3.5),
        ("avx512vnni", "resnet8", Zeros(0.9, (2, 4)), 2.9),
        # Instructions of emulated boards: README.md.
        ("dotprod", "mobilenet_v1", Zeros(0.8, (2, 4)), 2.7),
        ("dotprod", "mobilenet_v1", Zeros(0.9, (2, 4)), 3.4),
        ("neon", "mobilenet_v1", Zeros(0.8, (2, 4)), 3.3),
        ("neon", "mobilenet_v1", Zeros(0.9, (2, 4)), 4.5),
    ],
)
def test_predicted_ratios_are_those_that_were_measured(isa, network, zeros, measured):
    cpu = CPUS[isa]
    claimed = claim(read_network(NETWORKS[network](zeros)), cpu)
    ratio = times(claimed, cpu).ratio
    print(f"{isa} {network} {zeros}: predicted {ratio:.2f}x, measured {measured}x")
    assert ratio == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize("cpu", CPUS.values(), ids=CPUS)
def test_more_zeros_are_faster_and_none_change_nothing(cpu):
    ratios = []
    for share in (0.0, 0.75, 0.85, 0.95):
        network = claim(read_network(NETWORKS["resnet8"](Zeros(share))), cpu)
        ratios.append(times(network, cpu).ratio)
    assert ratios[0] == 1
    assert ratios[1:] == sorted(ratios[1:])
    assert ratios[-1] > 1.2
    assert cpu.source
