"""Outputs before and after a change, and the first layer that differs."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.models.files.equivalence import (
    finalize_normalizations,
    largest_difference,
    require_equal,
)
from edgesparse.spec.errors import EdgesparseError

L = tf.keras.layers
X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")


def network():
    inputs = tf.keras.Input((6,))
    x = L.Dense(8, "relu", name="first")(inputs)
    x = L.Dense(8, "relu", name="second")(x)
    return tf.keras.Model(inputs, L.Dense(3, name="third")(x))


def copied(model):
    copy = tf.keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def test_equal_models_pass_and_keep_their_layers():
    model = network()
    copy = copied(model)
    require_equal("copying", model, copy, X)
    assert not any("call" in vars(layer) for layer in [*model.layers, *copy.layers])


def test_a_difference_names_the_first_layer():
    model = network()
    copy = copied(model)
    copy.get_layer("second").kernel.assign(-copy.get_layer("second").kernel)
    with pytest.raises(
        EdgesparseError,
        match=r"copying changed the model's outputs by [\d.]+% .*, from layer second on",
    ):
        require_equal("copying", model, copy, X)
    assert not any("call" in vars(layer) for layer in model.layers)


def test_random_models_are_not_compared():
    inputs = tf.keras.Input((6,))
    model = tf.keras.Model(inputs, inputs + tf.random.normal(tf.shape(inputs)))
    require_equal("copying", model, tf.keras.models.clone_model(model), X)


def test_normalizations_use_assigned_statistics():
    normalization = L.Normalization()
    normalization.adapt(X * 3 + 50)
    inputs = tf.keras.Input((6,))
    model = tf.keras.Model(inputs, normalization(inputs))
    copy = tf.keras.models.clone_model(model)
    for weight, value in zip(copy.weights, model.get_weights(), strict=True):
        weight.assign(value)
    with pytest.raises(EdgesparseError, match="from layer normalization"):
        require_equal("copying", model, copy, X)
    finalize_normalizations(copy)
    require_equal("copying", model, copy, X)


def test_differences_are_shares_of_the_range():
    before = {"y": np.array([[0.0], [10.0], [np.nan]])}
    assert largest_difference(before, {"y": np.array([[0.0], [9.0], [1.0]])}) == pytest.approx(0.1)
    assert largest_difference(before, {"y": np.zeros((2, 1))}) == np.inf
    assert largest_difference(before, {"y": np.full((3, 1), np.nan)}) == np.inf
    assert largest_difference(before, {}) == np.inf
