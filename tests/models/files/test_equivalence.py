"""Answers before and after a change, and the layer from which on they differ."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.models.files.equivalence import (
    largest_difference,
    require_equal,
    settle_normalizations,
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
    twin = tf.keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


def test_equal_models_pass_and_keep_their_layers():
    model = network()
    twin = copied(model)
    require_equal("copying", model, twin, X)
    assert not any("call" in vars(layer) for layer in [*model.layers, *twin.layers])


def test_a_difference_names_the_first_layer():
    model = network()
    twin = copied(model)
    twin.get_layer("second").kernel.assign(-twin.get_layer("second").kernel)
    with pytest.raises(
        EdgesparseError,
        match=r"copying changes the model's answers by [\d.]+% .*, from layer second on",
    ):
        require_equal("copying", model, twin, X)
    assert not any("call" in vars(layer) for layer in model.layers)


def test_a_model_that_computes_with_random_numbers_is_not_judged():
    inputs = tf.keras.Input((6,))
    model = tf.keras.Model(inputs, inputs + tf.random.normal(tf.shape(inputs)))
    require_equal("copying", model, tf.keras.models.clone_model(model), X)


def test_normalizations_compute_with_the_statistics_that_were_set():
    normalization = L.Normalization()
    normalization.adapt(X * 3 + 50)
    inputs = tf.keras.Input((6,))
    model = tf.keras.Model(inputs, normalization(inputs))
    twin = tf.keras.models.clone_model(model)
    for weight, value in zip(twin.weights, model.get_weights(), strict=True):
        weight.assign(value)
    with pytest.raises(EdgesparseError, match="from layer normalization"):
        require_equal("copying", model, twin, X)
    settle_normalizations(twin)
    require_equal("copying", model, twin, X)


def test_differences_are_shares_of_a_range():
    before = {"y": np.array([[0.0], [10.0], [np.nan]])}
    assert largest_difference(before, {"y": np.array([[0.0], [9.0], [1.0]])}) == pytest.approx(0.1)
    assert largest_difference(before, {"y": np.zeros((2, 1))}) == np.inf
    assert largest_difference(before, {"y": np.full((3, 1), np.nan)}) == np.inf
    assert largest_difference(before, {}) == np.inf
