"""What `auto` turns into."""

import numpy as np
import pytest

from edgesparse.sparsity.choosing import sensitivity
from edgesparse.sparsity.choosing.auto import prune, resolve
from edgesparse.sparsity.choosing.sensitivity import Sensitivity, validation_accuracy
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Magnitude
from tests.sparsity.conftest import network, quiet

pytestmark = pytest.mark.slow
CHOSEN = {"point": "channels", "wide": "block-1x4", "classifier": "unstructured"}


def spec(**changes):
    settings = {"sparsity": 0.75, "pattern": "auto", "epochs": 2, **changes}
    return Magnitude(method="magnitude", **settings)


def test_patterns_are_put_in_and_the_users_overrides_stay():
    mine = {"wide": {"pattern": "unstructured", "sparsity": 0.5}}
    found = resolve(network(), spec(layers=mine, exclude=["classifier"]), CHOSEN)
    assert found.whole == ("point",)
    assert found.spec.pattern == "unstructured"
    assert found.spec.layers["wide"].pattern == "unstructured"
    assert found.spec.exclude == ["classifier", "point"]
    plain = spec(pattern="block-1x4")
    assert resolve(network(), plain, CHOSEN).spec is plain


def test_channels_go_where_zeros_gain_nothing_and_zeros_come_where_they_do(dataset):
    model = network()
    train = Train(epochs=2, learning_rate=3e-3)
    found = resolve(model, spec(), CHOSEN)
    done = prune(model, dataset, train, found, quiet)
    by_name = {layer.name: layer for layer in done.layers}
    # Half of the channels, so that with half of the inputs a quarter of the weights is left; 16
    # channels are no more than the least multiple.
    assert by_name["point"].pattern == "channels"
    assert by_name["wide"].pattern == "block-1x4"
    assert by_name["wide"].achieved == pytest.approx(0.75, abs=0.02)
    assert by_name["classifier"].achieved == pytest.approx(0.75, abs=0.05)
    wide = done.model.get_layer("wide").kernel.numpy()
    blocks = (wide != 0).reshape(len(wide) // 4, 4, -1)
    assert (blocks.all(axis=1) | ~blocks.any(axis=1)).all()


def test_nothing_but_channels(dataset):
    model = network()
    everything = dict.fromkeys(("point", "wide", "classifier"), "channels")
    found = resolve(model, spec(sparsity=0.9, exclude=["classifier", "depth", "stem"]), everything)
    done = prune(model, dataset, Train(epochs=1), found, quiet)
    assert done.model.get_layer("wide").kernel.shape[-1] == 16
    assert not np.any([layer.zeros for layer in done.layers])


def test_sparsities_are_found_that_keep_the_accuracy(trained_network, dataset):
    model = trained_network
    mine = spec(sparsity="auto", max_accuracy_drop=0.03, pattern="block-1x4")
    found = sensitivity.measure(model, dataset, mine, quiet)
    train = Train(epochs=3, learning_rate=1e-3)
    done = prune(model, dataset, train, resolve(model, mine, {}), quiet, found)
    assert validation_accuracy(done.model, dataset) >= found.accuracy - 0.03
    zeros = sum(layer.zeros for layer in done.layers)
    assert zeros > 0.3 * sum(layer.size for layer in done.layers)
    assert done.notes[0].startswith("sparsity by layer: ")


@pytest.mark.full
def test_a_sparsity_that_the_user_fixed_stays(trained_network, dataset):
    model = trained_network
    fixed = {"point": {"sparsity": 0.25}}
    mine = spec(sparsity="auto", max_accuracy_drop=0.2, pattern="unstructured", layers=fixed)
    found = sensitivity.measure(model, dataset, mine, quiet)
    train = Train(epochs=1, learning_rate=1e-3)
    done = prune(model, dataset, train, resolve(model, mine, {}), quiet, found)
    (point,) = [layer for layer in done.layers if layer.name == "point"]
    assert point.target == 0.25
    assert point.achieved == pytest.approx(0.25, abs=0.02)


def test_where_no_sparsity_keeps_it_that_is_said(trained_network, dataset):
    model = trained_network
    mine = spec(sparsity="auto", max_accuracy_drop=0.0, pattern="unstructured", epochs=0)
    found = sensitivity.measure(model, dataset, mine, quiet)
    hopeless = Sensitivity(1.5, found.levels, found.layers)
    with pytest.raises(EdgesparseError, match=r"no sparsity keeps accuracy within 0 of 1.5 "):
        prune(model, dataset, Train(epochs=0), resolve(model, mine, {}), quiet, hopeless)
    points = mine.model_copy(update={"max_accuracy_drop": 2.0})
    with pytest.raises(UsageError, match=r"accuracy is a share; write 0.02 for 2 points"):
        prune(model, dataset, Train(epochs=0), resolve(model, points, {}), quiet, found)
