"""Layers that nobody knows are asked what they do with their channels."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.methods.channels import shrink
from edgesparse.methods.network.dependencies import trace
from tests.methods.networks import L, Own


def traced(layer):
    """Behind a layer with 16 channels, and before a classifier."""
    inputs = tf.keras.Input((4, 6))
    x = L.Dense(16, "relu", name="before")(inputs)
    x = L.Flatten()(layer(x))
    model = tf.keras.Model(inputs, L.Dense(3, "softmax")(x))
    return model, trace(model)


class Normed(L.Layer):
    """Divides by what all channels have together."""

    def call(self, x):
        return x / (1.0 + tf.reduce_sum(tf.abs(x), axis=-1, keepdims=True))


class Backward(Own):
    """Its weight's rows are for the channels in reverse."""

    def call(self, x):
        return super().call(x[..., ::-1])


class Fussy(L.Layer):
    def call(self, x):
        if not tf.keras.backend.is_keras_tensor(x) and tf.executing_eagerly():
            raise RuntimeError("not like this")
        return x * 2.0


@pytest.mark.parametrize(
    ("layer", "follows"),
    [
        (lambda: L.Lambda(lambda t: t * 2.0 - 1.0), True),
        (lambda: L.Lambda(tf.nn.relu), True),
        (lambda: L.Lambda(lambda t: t[..., ::-1]), False),
        (lambda: L.Lambda(lambda t: t - tf.reduce_mean(t, -1, keepdims=True)), False),
        (lambda: L.Lambda(lambda t: t * tf.range(1.0, 17.0)), False),
        (Normed, False),
        (Fussy, False),
        (Own, True),
        (Backward, False),
    ],
)
def test_only_what_is_so_is_followed(layer, follows):
    _, found = traced(layer())
    groups = [group.layers for group in found.groups()]
    assert (("before",) in groups) == follows
    if not follows:
        assert "can mix channels" in " ".join(found.reasons.values())


@pytest.mark.parametrize("layer", [Own, lambda: L.Lambda(lambda t: t * 2.0)])
def test_a_smaller_model_answers_as_the_whole_one_without_those_channels(layer):
    model, found = traced(layer())
    kept = np.ones(len(found.fixed), bool)
    kept[found.groups()[0].atoms[:5]] = False
    smaller = shrink(model, found, kept)
    before = model.get_layer("before")
    kernel, bias = before.get_weights()
    kernel[:, :5], bias[:5] = 0, 0
    before.set_weights([kernel, bias])
    x = np.random.default_rng(0).random((3, 4, 6), dtype=np.float32)
    np.testing.assert_allclose(model(x), smaller(x), atol=1e-5)
    assert smaller.count_params() < model.count_params()


def test_asking_changes_nothing():
    model, _ = traced(Own())
    before = [weight.numpy() for weight in model.weights]
    trace(model)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)
