"""Why a file answers wrong: each cause made, and named."""

import re

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.convert import convert
from edgesparse.tflite.diagnose import diagnose, require_layout

pytestmark = pytest.mark.slow
L = tf.keras.layers
RANDOM = np.random.default_rng(0)


def network(*layers, width=6):
    tf.keras.backend.reset_uids()
    tf.keras.utils.set_random_seed(1)
    return tf.keras.Sequential([tf.keras.Input((width,)), *layers])


def cause_of(model, x, scheme="int8"):
    return diagnose(convert(model, scheme, x), model, [x])


def test_a_network_that_answers_right_has_nothing():
    x = RANDOM.random((40, 6)).astype(np.float32)
    assert cause_of(network(L.Dense(16, "relu"), L.Dense(3)), x) is None


def test_a_feature_whose_range_dominates_is_named():
    x = RANDOM.random((40, 6)).astype(np.float32)
    x[:, 4] *= 1000
    cause = cause_of(network(L.Dense(16, "relu"), L.Dense(3)), x)
    assert "feature 4 has a range of" in cause
    assert "scale the features in the data, or add a Normalization layer" in cause


def test_a_network_that_has_not_learned_is_reported():
    x = RANDOM.random((40, 6)).astype(np.float32)
    model = network(L.Dense(16, "relu"), L.Dense(3, "softmax"))
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 1e-3)
    assert "the network has not learned yet; train it longer" in cause_of(model, x)
    # Whoever brings a trained model does not train it here.
    cause = diagnose(convert(model, "int8", x), model, [x], trained=False)
    assert "the model hardly depends on the samples; scale them as in its training" in cause
    cause = diagnose(convert(model, "f16", x), model, [x], trained=False)
    varies = r"its outputs vary by [0-9.e-]+ over the golden samples, and their largest magnitude "
    assert re.match(varies + r"is 0\.3\d*: half precision keeps three digits; scale", cause)


def test_nan_is_named_with_its_layer():
    x = RANDOM.random((40, 6)).astype(np.float32)
    model = network(L.Dense(16, name="fine"), L.Dense(3, name="broken"))
    content = convert(model, "int8", x)
    model.get_layer("broken").bias.assign([np.nan, 0, 0])
    assert diagnose(content, model, [x]) == ("layer broken (Dense) outputs NaN or infinity")
    x[3, 2] = np.inf
    assert diagnose(content, model, [x]).startswith("the data contains NaN or infinity")


def test_the_layer_where_outputs_part_is_named():
    x = RANDOM.random((40, 6)).astype(np.float32)
    model = network(
        L.Dense(16, "relu", name="first"), L.Dense(16, "relu", name="second"), L.Dense(3)
    )
    content = convert(model, "int8", x)
    kernel = model.get_layer("second").kernel
    kernel.assign(-kernel)
    assert "layer second (Dense) deviates from Keras" in diagnose(content, model, [x])


def images_first(*layers, shape=(3, 12, 12)):
    i = tf.keras.Input(shape)
    x = i
    for layer in layers:
        x = layer(x)
    outer = tf.keras.Model(i, x)
    head = L.Dense(2)(L.Flatten()(outer(i)))
    return tf.keras.Model(i, head), [RANDOM.random((2, *shape), np.float32)]


def test_channels_first_are_taken_where_the_file_answers_the_same():
    first = {"data_format": "channels_first"}
    require_layout(*images_first(L.Conv2D(4, 3, **first), L.DepthwiseConv2D(3, **first)))
    require_layout(*images_first(L.Conv2D(4, 3, **first), L.BatchNormalization(axis=1), L.ReLU()))
    require_layout(*images_first(L.MaxPooling2D(2, **first)))


@pytest.mark.parametrize(
    ("layer", "shape", "reason"),
    [
        (L.SeparableConv2D, (3, 12, 12), "TFLite has no operator for DepthwiseConv2dNative"),
        (L.Conv1D, (3, 12), "transpose"),
    ],
)
def test_channels_first_are_refused_where_they_do_not_convert(layer, shape, reason):
    model, x = images_first(layer(4, 3, data_format="channels_first", name="it"), shape=shape)
    with pytest.raises(UsageError, match=f"layer it takes channels first .*{reason}.*channels_las"):
        require_layout(model, x)
