"""What one inference uses of a network."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.data import Tensor
from edgesparse.layers import Experts
from edgesparse.methods.network.functional import functional
from edgesparse.models.mlp import mlp
from edgesparse.models.moe_mlp import moe_mlp
from edgesparse.tflite.usage import usage

SAMPLES = [np.random.default_rng(0).random((40, 8, 8, 1), np.float32)]


def test_a_plain_network_has_zeros_between_its_layers_and_nothing_else():
    tf.keras.utils.set_random_seed(1)
    model = mlp([8, 8, 1], 10, [32, 16])
    result = usage(model, SAMPLES)
    assert set(result) == {"activation_zeros", "activations"}
    first = tf.keras.Model(model.inputs, model.get_layer("dense_1").output)(SAMPLES[0]).numpy()
    assert result["activations"]["dense_1"] == pytest.approx(np.mean(first == 0), abs=1e-6)
    assert set(result["activations"]) == {"dense_1", "dense_2"}
    weighted = (32 * result["activations"]["dense_1"] + 16 * result["activations"]["dense_2"]) / 48
    assert result["activation_zeros"] == pytest.approx(weighted, abs=1e-5)


def test_experts_and_the_weights_that_are_read():
    tf.keras.utils.set_random_seed(1)
    model = moe_mlp([8, 8, 1], 10, experts=4, top_k=1)
    layer = model.get_layer("experts")
    result = usage(model, SAMPLES)
    assert sum(result["experts"]["experts"]) == pytest.approx(1.0, abs=1e-3)
    assert len(result["experts"]["experts"]) == 4
    unread = layer.count_params() - layer.active_weights()
    assert result["active_parameters"] == model.count_params() - unread
    # A router that always picks the same.
    layer.router.assign(np.array([[9.0, 0, 0, 0]] * 64))
    assert usage(model, SAMPLES)["experts"]["experts"] == [1.0, 0, 0, 0]


def test_layers_that_are_in_other_graphs_too():
    """As those of a nested model, or of one with open sizes, which is called on the data's."""
    layers = tf.keras.layers
    inputs = tf.keras.Input((None, 3))
    x = layers.Dense(8, "relu", name="hidden")(inputs)
    x = Experts(4, 4, 3, 1, name="experts")(x)
    model = tf.keras.Model(inputs, layers.GlobalAveragePooling1D()(x))
    closed = functional(model, {"x": Tensor((5, 3), "float32")}, "m")
    result = usage(closed, [np.random.default_rng(0).random((6, 5, 3), np.float32)])
    assert set(result["activations"]) == {"hidden"}
    assert len(result["experts"]["experts"]) == 3
