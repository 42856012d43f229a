"""A model's own training, of which its layers know nothing."""

import numpy as np
import tensorflow as tf

from edgesparse.data import Tensor
from edgesparse.methods.network.functional import functional
from edgesparse.methods.training.custom_training import custom_step, dropped_losses

L = tf.keras.layers
SAMPLES = {"x": np.random.default_rng(0).normal(size=(4, 6)).astype("float32")}


class Adding(tf.keras.Model):
    """As guides have it: a part of the loss is added in the call."""

    def __init__(self):
        super().__init__()
        self.normal, self.dense = L.BatchNormalization(), L.Dense(3, kernel_regularizer="l2")

    def call(self, x, training=False):
        x = self.normal(x, training=training)
        self.add_loss(tf.reduce_mean(tf.square(x)))
        return self.dense(x)


class Sparing(Adding):
    def call(self, x, training=False):
        return self.dense(self.normal(x, training=training))


class Stepping(tf.keras.Model):
    def train_step(self, data):
        raise AssertionError


def around(inner):
    inputs = tf.keras.Input((6,))
    return tf.keras.Model(inputs, L.Softmax()(inner(inputs)))


def lost(model):
    flat = functional(model, {"x": Tensor((6,), "float32")}, "it")
    before = [w.numpy() for w in model.weights]
    found = dropped_losses(model, flat, SAMPLES)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    return found


def test_losses_that_a_call_adds_are_lost_layer_by_layer():
    assert lost(Adding()) == "add_loss() of Adding, or of a model in it,"
    assert lost(around(Adding())).startswith("add_loss() of Functional")
    assert lost(Sparing()) == ""
    assert lost(around(Sparing())) == ""


def test_losses_of_layers_and_of_a_flat_model_are_kept():
    inputs = tf.keras.Input((6,))
    x = L.Dense(3, activity_regularizer="l2")(inputs)
    model = tf.keras.Model(inputs, x)
    model.add_loss(tf.reduce_mean(x))
    assert lost(model) == ""


def test_a_step_of_ones_own_is_named():
    inputs = tf.keras.Input((6,))
    assert custom_step(Stepping(inputs, L.Dense(3)(inputs))) == "Stepping.train_step()"
    assert custom_step(tf.keras.Model(inputs, L.Dense(3)(inputs))) == ""
    assert custom_step(tf.keras.Sequential([inputs, L.Dense(3)])) == ""
