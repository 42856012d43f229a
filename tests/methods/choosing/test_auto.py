"""What `auto` turns into."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import data
from edgesparse.methods.choosing import sensitivity
from edgesparse.methods.choosing.auto import prune, resolve
from edgesparse.methods.choosing.sensitivity import Sensitivity, validation_accuracy
from edgesparse.methods.network.kernels import EXCLUDED
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Magnitude
from tests.methods.conftest import network, quiet

pytestmark = pytest.mark.slow
L = tf.keras.layers
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


@pytest.mark.full
def test_channels_go_where_zeros_gain_nothing_and_zeros_come_where_they_do(dataset):
    model = network()
    train = Train(epochs=2, learning_rate=3e-3)
    found = resolve(model, spec(), CHOSEN)
    done = prune(model, dataset, train, found, quiet)
    by_name = {layer.name: layer for layer in done.layers}
    # 16 channels are no more than the least multiple: it has zeros, which gain no time.
    assert by_name["point"].pattern == "unstructured"
    assert by_name["point"].achieved == pytest.approx(0.75, abs=0.02)
    assert "zeros instead of removed channels, which cannot be removed: point" in done.notes
    assert by_name["wide"].pattern == "block-1x4"
    assert by_name["wide"].achieved == pytest.approx(0.75, abs=0.02)
    assert by_name["classifier"].achieved == pytest.approx(0.75, abs=0.05)
    wide = done.model.get_layer("wide").kernel.numpy()
    blocks = (wide != 0).reshape(len(wide) // 4, 4, -1)
    assert (blocks.all(axis=1) | ~blocks.any(axis=1)).all()


def test_nothing_but_channels(dataset):
    model = network()
    others = ["classifier", "depth", "point", "stem"]
    found = resolve(model, spec(exclude=others, allow_partial=True), {"wide": "channels"})
    done = prune(model, dataset, Train(epochs=1), found, quiet)
    assert done.model.get_layer("wide").kernel.shape[-1] == 16
    assert not np.any([layer.zeros for layer in done.layers])


def before_a_softmax():
    """Its last layer cannot lose channels: what comes behind it mixes them."""
    inputs = tf.keras.Input((32, 32, 3))
    x = L.Conv2D(32, 3, 4, activation="relu", name="stem")(inputs)
    x = L.Conv2D(64, 1, activation="relu", name="inner")(x)
    x = L.Conv2D(256, 1, name="last")(x)
    x = L.GlobalAveragePooling2D()(L.Softmax()(x))
    return tf.keras.Model(inputs, L.Dense(4, name="classifier")(x))


@pytest.fixture(scope="module")
def images():
    x = np.random.default_rng(2).random((40, 32, 32, 3), dtype=np.float32)
    return data.from_arrays("images", x, np.arange(40) % 4)


def test_a_layer_that_can_lose_no_channels_has_zeros(images):
    tf.keras.backend.clear_session()
    model = before_a_softmax()
    size = {layer: model.get_layer(layer).kernel.numpy().size for layer in ("inner", "last")}
    chosen = {"inner": "channels", "last": "channels"}
    found = resolve(model, spec(sparsity=0.7, exclude=["stem"], epochs=0), chosen)
    done = prune(model, images, Train(epochs=0), found, quiet)
    by_name = {layer.name: layer for layer in done.layers}
    assert by_name["inner"].pattern == "channels"
    assert by_name["last"].pattern == "unstructured"
    kernel = done.model.get_layer("last").kernel.numpy()
    assert np.count_nonzero(kernel) == pytest.approx(0.3 * size["last"], rel=0.02)
    assert done.coverage.achieved == pytest.approx(0.7, abs=0.05)
    reasons = {layer.name: layer.reason for layer in done.coverage.left_dense}
    assert reasons == {"stem": EXCLUDED, "inner": "channels were removed instead"}


def test_less_than_half_of_what_was_asked_for_fails_as_elsewhere(images):
    tf.keras.backend.clear_session()
    chosen = {"classifier": "channels"}
    mine = spec(sparsity=0.7, exclude=["stem", "inner", "last"], epochs=0)
    model = before_a_softmax()
    with pytest.raises(EdgesparseError, match="requested 70% sparsity, reached 4%"):
        prune(model, images, Train(epochs=0), resolve(model, mine, chosen), quiet)
    mine = mine.model_copy(update={"allow_partial": True})
    model = before_a_softmax()
    done = prune(model, images, Train(epochs=0), resolve(model, mine, chosen), quiet)
    assert done.coverage.achieved < 0.35


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
