"""The networks that people take: each is pruned, halved and quantized."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from edgesparse import data
from edgesparse.data import Tensor
from edgesparse.methods.channels import channels
from edgesparse.methods.magnitude import magnitude
from edgesparse.methods.network.cost import cost
from edgesparse.methods.network.dependencies import trace
from edgesparse.methods.network.functional import functional
from edgesparse.methods.training.fitting import fit
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Channels, Magnitude
from edgesparse.tflite.convert import convert
from tests.methods.conftest import quiet
from tests.tflite.test_convert import answers

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(900)]
ONE_SHOT = Train(epochs=0)
# Xception takes nothing smaller than 71 pixels.
SIZES = {
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "EfficientNetB0": 32,
    "ResNet50": 32,
    "DenseNet121": 32,
    "Xception": 71,
}
TRAINED = ("MobileNetV2", "ResNet50")
"""One of each family of blocks: the others' training takes minutes, and test_matrix.py trains a
squeeze-and-excitation gate."""


def built(name):
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(1)
    shape = (SIZES[name], SIZES[name], 3)
    model = getattr(tf.keras.applications, name)(
        input_shape=shape, weights=None, include_top=False, pooling="avg"
    )
    outputs = tf.keras.layers.Dense(3, "softmax")(model.output)
    model = tf.keras.Model(model.input, outputs)
    return functional(model, {"x": Tensor(shape, "float32")}, name)


def dataset_of(name, count=120):
    size, y = SIZES[name], np.arange(count) % 3
    random = np.random.default_rng(0)
    x = random.random((count, size, size, 3)) * 0.3
    x[np.arange(count), :, :, y] += 0.7
    return data.from_arrays("colours", x.astype(np.float32), y)


def macs(model):
    found = trace(model)
    return cost(found, np.ones(len(found.fixed), bool)).macs


def copied(model):
    copy = tf.keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


@pytest.mark.parametrize("name", SIZES)
def test_zeros_are_reached_and_multiply_accumulates_are_halved(name):
    dataset, model = dataset_of(name, 30), built(name)
    spec = Magnitude(method="magnitude", sparsity=0.8, epochs=0)
    done = magnitude(copied(model), dataset, ONE_SHOT, spec, quiet)
    assert abs(done.coverage.achieved - 0.8) <= 0.05, done.coverage
    spec = Channels(method="channels", macs=0.5, epochs=0)
    done = channels(model, dataset, ONE_SHOT, spec, quiet)
    assert macs(done.model) <= 0.5 * macs(model)
    assert done.model.count_params() < model.count_params()


@pytest.mark.parametrize("name", TRAINED)
def test_int8_answers_like_keras_after_a_short_training(name):
    dataset, model = dataset_of(name), built(name)
    # Batch normalizations forget fast here: there are few steps.
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.7
    fit(model, dataset, Train(epochs=6, batch_size=16, learning_rate=1e-3), quiet)
    x = data.arrays(dataset.validation, 12)[0]["x"]
    content = convert(model, "int8", data.representative(dataset, 60)["x"])
    expected, found = model(x, training=False).numpy(), answers(content, x)
    off = np.abs(found - expected).max(axis=1) / np.ptp(expected)
    assert np.mean(off <= 0.2) >= 0.9
    assert Interpreter(model_content=content).get_input_details()[0]["dtype"] == np.int8
