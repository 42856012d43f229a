"""Channels in an order in which blocks of zeros keep larger weights."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.methods.choosing.channel_order import ordered
from edgesparse.methods.masks import kernel_mask
from edgesparse.methods.network.kernels import kernels

layers = tf.keras.layers
SAMPLES = np.random.default_rng(0).random((4, 6, 6, 3)).astype(np.float32)


def network(*, normalize=layers.BatchNormalization):
    """Chains with what may stand between two convolutions, a residual, and a flattened image."""
    tf.keras.utils.set_random_seed(3)
    inputs = tf.keras.Input((6, 6, 3))
    x = layers.Conv2D(16, 3, padding="same", name="first")(inputs)
    x = layers.ReLU()(normalize()(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depth")(x)
    y = layers.Conv2D(24, 1, activation="relu", name="inner")(x)
    y = layers.Conv2D(16, 3, padding="same", name="outer")(y)
    x = layers.Flatten()(layers.Conv2D(8, 1, name="last")(layers.Add()([x, y])))
    model = tf.keras.Model(inputs, layers.Dense(5, "softmax", name="classifier")(x))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            random = np.random.default_rng(1)
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


def blocks(kernel):
    return None if kernel.reason else "block-2x4"


def kept(model):
    """Share of the squares that blocks keep, of the kernels with blocks."""
    total = left = 0.0
    for kernel in kernels(model).values():
        if blocks(kernel) and kernel.takes_blocks:
            squares = np.square(kernel.variable.numpy())
            total += squares.sum()
            left += squares[kernel_mask(kernel, 0.75, "block-2x4")].sum()
    return left / total


def test_blocks_keep_more_and_outputs_are_the_same():
    model = network()
    weight = model.get_layer("outer").kernel
    # The large inputs are those of no two in a block.
    scale = np.where(np.arange(24) % 4 == 1, 5.0, 1.0).astype(np.float32)
    weight.assign(weight * scale[:, None])
    before = [w.copy() for w in model.get_weights()]
    result, notes = ordered(model, blocks, 0.75, SAMPLES)
    assert notes == ()
    assert kept(result) > 1.1 * kept(model)
    assert np.allclose(result(SAMPLES), model(SAMPLES), atol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    large = np.abs(result.get_layer("outer").kernel.numpy()).sum(axis=(0, 1, 3)).reshape(-1, 4)
    largest = np.argsort(large, axis=None)[-6:] // 4
    assert len(set(largest.tolist())) <= 3, "six large inputs fill two or three blocks"


def test_nothing_moves_without_blocks():
    model = network()
    assert ordered(model, lambda _: "unstructured", 0.75, SAMPLES) == (model, ())


def test_an_order_that_a_layer_depends_on_stays():
    model = network(normalize=lambda: layers.GroupNormalization(4))
    result, _ = ordered(model, blocks, 0.75, SAMPLES)
    assert np.allclose(result(SAMPLES), model(SAMPLES), atol=1e-5)


@pytest.mark.parametrize("pattern", ["block-1x2", "block-1x16", "block-4x4"])
def test_every_block(pattern):
    model = network()
    result, _ = ordered(model, lambda k: None if k.reason else pattern, 0.5, SAMPLES)
    assert np.allclose(result(SAMPLES), model(SAMPLES), atol=1e-5)


def test_what_goes_wrong_is_a_note():
    def failing(kernel):
        raise ValueError("no pattern\nmore")

    model = network()
    result, (note,) = ordered(model, failing, 0.75, SAMPLES)
    assert result is model
    assert note.endswith("blocks may keep smaller weights: ValueError: no pattern")


class Bottleneck(layers.Layer):
    """Two matrices, of which the first reads the channels before."""

    def build(self, shape):
        self.down = self.add_weight(name="down", shape=(shape[-1], 16))
        self.up = self.add_weight(name="up", shape=(16, 64))

    def call(self, x):
        return tf.matmul(tf.matmul(x, self.down), self.up)


def test_a_layer_with_two_matrices_of_its_own_is_left_alone():
    inputs = tf.keras.Input((6, 6, 3))
    x = layers.Conv2D(64, 3, activation="relu")(inputs)
    x = layers.GlobalAveragePooling2D()(Bottleneck()(x))
    model = tf.keras.Model(inputs, layers.Dense(5)(x))
    result, _ = ordered(model, lambda _: "block-1x4", 0.75, SAMPLES)
    assert np.allclose(result(SAMPLES), model(SAMPLES), atol=1e-4)


def test_blocks_of_an_earlier_step_stay_together():
    model = network()
    kernel = model.get_layer("inner").kernel
    kernel.assign(kernel * kernel_mask(kernels(model)["inner"], 0.75, "block-1x4"))
    result, _ = ordered(model, lambda k: "block-2x4" if k.layer == "outer" else None, 0.5, SAMPLES)
    assert np.array_equal(result.get_layer("inner").kernel, kernel)
