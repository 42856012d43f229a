"""Inputs that still reach the outputs."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.layers import SparseDense
from edgesparse.tflite.convert import convert
from edgesparse.tflite.input_attribution import features

pytestmark = pytest.mark.slow  # Each test converts a network.

L = tf.keras.layers


def network(units=8):
    tf.keras.utils.set_random_seed(3)
    inputs = tf.keras.Input((6,))
    x = L.Dense(units, "relu", name="first")(inputs)
    return tf.keras.Model(inputs, L.Dense(3, "softmax", name="last")(x))


@pytest.mark.parametrize("scheme", ["f32", "int8", "dynamic"])
def test_a_path_is_of_weights_that_are_not_zero(scheme):
    model = network()
    first, last = model.get_layer("first"), model.get_layer("last")
    kernel, behind = first.kernel.numpy(), last.kernel.numpy()
    kernel[2] = 0  # Nothing reads it.
    kernel[4] = 0
    kernel[4, 5] = 1.0  # Only one unit does, and nobody reads that.
    behind[5] = 0
    first.kernel.assign(kernel)
    last.kernel.assign(behind)
    x = np.random.default_rng(0).random((40, 6), np.float32)
    (result,) = features(convert(model, scheme, x))
    assert result.reach.tolist() == [True, True, False, True, False, True]
    expected = kernel @ behind
    np.testing.assert_allclose(result.strength, expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("compact", [False, True])
def test_words_reach_through_their_rows(compact):
    tf.keras.utils.set_random_seed(3)
    inputs = [tf.keras.Input((4,), dtype="int32", name="ids"), tf.keras.Input((4,), name="counts")]
    table = SparseDense(8, 50, "relu", name="table")
    model = tf.keras.Model(inputs, L.Dense(2, name="last")(table(inputs)))
    kernel = table.kernel.numpy()
    kernel[10:] = 0
    table.kernel.assign(kernel)
    if compact:
        smaller, weights = table.compact()
        other = tf.keras.Model(inputs, model.get_layer("last")(smaller(inputs)))
        smaller.set_weights(weights)
        model = other
    values = [np.zeros((2, 4), np.int32), np.ones((2, 4), np.float32)]
    (result,) = features(convert(model, "f32", values))
    assert result.name == "ids"
    assert np.flatnonzero(result.reach).tolist() == list(range(10))
    np.testing.assert_allclose(
        result.strength, kernel @ model.get_layer("last").kernel.numpy(), atol=1e-5
    )


def test_paths_that_cannot_be_followed_are_marked():
    inputs = tf.keras.Input((8, 8, 1))
    x = L.Flatten()(L.Conv2D(4, 3)(inputs))
    content = convert(tf.keras.Model(inputs, L.Dense(2)(x)), "f32", np.zeros((1, 8, 8, 1)))
    (result,) = features(content)
    assert result.reach.all()
    assert not result.followed
