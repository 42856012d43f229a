"""Zeros without training and without labels."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import data
from edgesparse.data import Split
from edgesparse.methods.magnitude import magnitude
from edgesparse.methods.network import least_squares
from edgesparse.methods.network.functional import functional
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.one_shot import one_shot
from edgesparse.methods.training import fitting
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Magnitude, OneShot

pytestmark = pytest.mark.slow


def quiet(share, text):
    pass


@pytest.fixture(scope="module")
def digits():
    from edgesparse.data.digits import digits

    return digits([16, 16, 1])


@pytest.fixture(scope="module")
def trained(digits):
    """A small network with what the method knows, and what it does not."""
    tf.keras.utils.set_random_seed(5)
    layers = tf.keras.layers
    i = tf.keras.Input((16, 16, 1))
    x = layers.Conv2D(16, 3, strides=2, use_bias=False, name="stem")(i)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(32, 3, padding="same", dilation_rate=2, name="wide")(x)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(64, 1, name="point")(x)
    x = layers.ReLU()(x)
    x = layers.Reshape((25, 64))(x)
    x = layers.Conv1D(64, 3, padding="causal", name="line")(x)
    x = layers.Flatten()(layers.MaxPooling1D(5)(x))  # Time goes with the cube of its inputs.
    x = layers.Dense(64, activation="relu", name="dense")(x)
    model = tf.keras.Model(i, layers.Dense(10, activation="softmax", name="out")(x))
    fitting.fit(model, digits, Train(epochs=8, learning_rate=3e-3), quiet)
    return model


def again(model):
    twin = tf.keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


def accuracy(model, dataset):
    return fitting.scores(model, dataset)["accuracy"]


@pytest.mark.full
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block-1x4"])
def test_little_is_lost_where_magnitude_loses_much(trained, digits, pattern):
    sparsity = 0.5 if pattern == "2:4" else 0.8
    spec = OneShot(method="one-shot", sparsity=sparsity, pattern=pattern)
    # Nobody looks at a label.
    blind = Split(digits.train.count, digits.train.samples.map(lambda x, y: (x, y * 0)))
    done = one_shot(again(trained), replace(digits, train=blind), Train(epochs=0), spec, quiet)
    other = Magnitude(method="magnitude", sparsity=sparsity, pattern=pattern, epochs=0)
    plain = magnitude(again(trained), digits, Train(epochs=0), other, quiet)
    dense = accuracy(trained, digits)
    assert dense > 0.95
    assert accuracy(done.model, digits) >= dense - (0.03 if pattern == "block-1x4" else 0.02)
    assert accuracy(done.model, digits) > accuracy(plain.model, digits)
    assert done.coverage.achieved == pytest.approx(sparsity, abs=0.05)
    assert {"depthwise", "stem"} <= {layer.name for layer in done.coverage.left_dense}
    assert done.history == {}
    assert "no labels and no training: 500 calibration samples" in done.notes


@pytest.mark.full
def test_it_may_be_trained_afterwards(trained, digits):
    spec = OneShot(method="one-shot", sparsity=0.9, epochs=2)
    done = one_shot(again(trained), digits, Train(epochs=2, learning_rate=1e-3), spec, quiet)
    assert len(done.history["loss"]) == 2
    assert done.coverage.achieved == pytest.approx(0.9, abs=0.02)
    found = kernels(done.model)["dense"].variable.numpy()
    assert np.mean(found == 0) > 0.5


def test_what_is_too_large_stays_dense_and_says_so(trained, digits, monkeypatch):
    largest = max(
        (layer for layer in trained.layers if hasattr(layer, "kernel")),
        key=lambda layer: np.prod(layer.kernel.shape[:-1]),
    )
    inputs = int(np.prod(largest.kernel.shape[:-1]))
    limit = least_squares.needed_bytes(inputs, largest.kernel.shape[-1]) - 1
    monkeypatch.setattr(least_squares, "MOST_BYTES", limit)
    spec = OneShot(method="one-shot", sparsity=0.5, calibration_samples=50, allow_partial=True)
    done = one_shot(again(trained), digits, Train(epochs=0), spec, quiet)
    reasons = {layer.name: layer.reason for layer in done.coverage.left_dense}
    assert reasons[largest.name].startswith(f"too large to reconstruct: {inputs:,} x ")
    assert largest.name not in {layer.name for layer in done.layers}


def test_a_network_that_it_does_not_know_says_so():
    x, y = np.zeros((30, 4, 3), np.float32), np.repeat([0, 1, 2], 10)
    i = tf.keras.Input((4, 3))
    out = tf.keras.layers.GRU(3, activation="softmax")(i)
    spec = OneShot(method="one-shot", sparsity=0.5)
    with pytest.raises(UsageError, match="no layer can be reconstructed"):
        one_shot(tf.keras.Model(i, out), data.from_arrays("x", x, y), Train(epochs=0), spec, quiet)


@pytest.mark.parametrize("kind", ["nested", "twice"])
def test_layers_of_a_model_in_a_model_are_reconstructed(kind):
    """Transfer learning as everybody saves it; and two branches with the same layers."""
    layers, shape = tf.keras.layers, (8, 8, 3)
    tower = tf.keras.Sequential(
        [tf.keras.Input(shape), layers.Conv2D(8, 3, activation="relu"), layers.Flatten()], "base"
    )
    i = tf.keras.Input(shape)
    x = tower(i, training=False) if kind == "nested" else tower(i) - tower(i * 0.5)
    model = tf.keras.Model(i, layers.Dense(2, "softmax")(layers.Dense(16, "relu")(x)))
    random = np.random.default_rng(0)
    dataset = data.from_arrays(
        "squares", random.random((120, *shape), dtype=np.float32), random.integers(0, 2, 120)
    )
    flat = functional(model, dataset.inputs, "it")
    spec = OneShot(method="one-shot", sparsity=0.5, epochs=0)
    done = one_shot(flat, dataset, Train(epochs=0), spec, quiet)
    assert done.coverage.achieved == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("kind", ["Conv1D", "Conv2D"])
def test_channels_first_are_pruned_as_channels_last_are(kind):
    """The same weights see the same patches."""
    kernels_after = []
    for order in ("channels_first", "channels_last"):
        shape = (40, 8, 3) if kind == "Conv1D" else (40, 8, 8, 3)
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        if order == "channels_first":
            x = np.moveaxis(x, -1, 1)
        tf.keras.utils.set_random_seed(0)
        i = tf.keras.Input(x.shape[1:])
        layer = getattr(tf.keras.layers, kind)(16, 3, data_format=order, padding="same", name="it")
        flat = tf.keras.layers.Flatten(data_format=order)(layer(i))
        model = tf.keras.Model(i, tf.keras.layers.Dense(2)(flat))
        dataset = data.from_arrays("x", x, np.arange(len(x)) % 2)
        spec = OneShot(method="one-shot", sparsity=0.5, exclude=["dense*"], allow_partial=True)
        one_shot(model, dataset, Train(epochs=0), spec, quiet)
        kernels_after.append(layer.kernel.numpy())
    np.testing.assert_allclose(*kernels_after, atol=1e-5)
    assert (kernels_after[0] == 0).mean() > 0.3
