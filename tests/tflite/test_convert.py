import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from edgesparse import models
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import ModelSource
from edgesparse.tflite.convert import convert
from edgesparse.tflite.format.flatbuffer import constants, open_model
from edgesparse.tflite.format.inspect import inspect

TOLERANCE = {
    "f32": 1e-5, "f16": 2e-3, "dynamic": 0.05, "int8": 0.05, "uint8": 0.05, "int16x8": 0.02,
}  # fmt: skip


def answers(content, x):
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    found = []
    for sample in x:
        value = sample[None]
        scale, zero = source["quantization"]
        if scale:
            limits = np.iinfo(source["dtype"])
            value = np.clip(np.round(value / scale) + zero, limits.min, limits.max)
            value = value.astype(source["dtype"])
        interpreter.reset_all_variables()
        interpreter.set_tensor(source["index"], value)
        interpreter.invoke()
        output = interpreter.get_tensor(target["index"])[0].astype(np.float32)
        scale, zero = target["quantization"]
        if scale:
            output = (output - zero) * scale
        found.append(output)
    return np.stack(found)


@pytest.mark.parametrize("scheme", list(TOLERANCE))
def test_every_scheme_answers_like_keras(sparse_dense_layer, samples, scheme):
    content = convert(sparse_dense_layer, scheme, samples)
    expected = sparse_dense_layer(samples).numpy()
    assert np.abs(answers(content, samples) - expected).max() < TOLERANCE[scheme]
    dtype = {"f32": "float32", "f16": "float16"}.get(scheme, "int8")
    assert {w.dtype for w in inspect(content).matrices} >= {dtype}


@pytest.mark.parametrize(
    ("scheme", "dtype"), [("int8", np.int8), ("uint8", np.uint8), ("int16x8", np.int16)]
)
def test_integers_are_taken_and_given(sparse_dense_layer, samples, scheme, dtype):
    interpreter = Interpreter(model_content=convert(sparse_dense_layer, scheme, samples))
    assert interpreter.get_input_details()[0]["dtype"] == dtype
    assert interpreter.get_output_details()[0]["dtype"] == dtype


def test_zeros_are_positive(samples):
    inputs = tf.keras.Input((512,))
    dense = tf.keras.layers.Dense(64, use_bias=False)
    model = tf.keras.Model(inputs, dense(inputs))
    dense.kernel.assign(tf.where(tf.abs(dense.kernel) < 0.05, -0.0, dense.kernel))
    (weight,) = constants(open_model(convert(model, "f32", samples), "m"))
    zeros = weight.values[weight.values == 0]
    assert len(zeros) > 1000
    assert not np.signbit(zeros).any()


def test_fully_connected_layers_can_have_one_scale(sparse_dense_layer, samples):
    def scales(**settings):
        content = convert(sparse_dense_layer, "int8", samples, **settings)
        return {c.scales for c in constants(open_model(content, "m")) if c.is_weight}

    assert scales(one_scale=True) == {1}
    assert scales() == {512, 10}


@pytest.mark.slow
def test_the_batch_is_one_and_no_shape_is_computed(tmp_path):
    args = {"input_shape": [32, 32, 3], "classes": 10, "alpha": 0.25}
    model = models.build(ModelSource(name="mobilenet_v1", args=args), tmp_path)
    interpreter = Interpreter(model_content=convert(model, "f32", np.zeros((1, 32, 32, 3))))
    interpreter.allocate_tensors()
    assert list(interpreter.get_input_details()[0]["shape_signature"]) == [1, 32, 32, 3]
    names = {d["op_name"] for d in interpreter._get_ops_details()}
    assert not names & {"SHAPE", "STRIDED_SLICE", "PACK"}


def test_an_impossible_model_is_an_error():
    inputs = tf.keras.Input((4,))
    outputs = tf.keras.layers.Lambda(lambda x: tf.py_function(lambda v: v, [x], tf.float32))(inputs)
    with pytest.raises(EdgesparseError, match="TFLite conversion failed"):
        convert(tf.keras.Model(inputs, outputs), "f32", np.zeros((1, 4)))


def test_spectra_that_tflite_has_no_operator_for_belong_to_the_data():
    sound = inputs = tf.keras.Input((800,))
    energies = tf.math.log(tf.abs(tf.signal.stft(sound, 200, 100))[..., :40] + 1e-6)
    outputs = tf.signal.mfccs_from_log_mel_spectrograms(energies)
    with pytest.raises(
        EdgesparseError,
        match=r"no operator for StridedSlice; .*\(tf.signal.stft.*, tf.signal.mfccs_.*\): "
        r"remove these layers, and compute the spectra with the data",
    ):
        convert(tf.keras.Model(inputs, outputs), "f32", np.zeros((1, 800), np.float32))
