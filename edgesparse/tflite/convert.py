"""From a Keras model to .tflite bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.spec.errors import EdgesparseError, cause_of
from edgesparse.spec.pipeline import Scheme
from edgesparse.spec.safe.temporary import temporary_folder
from edgesparse.tflite.format.graph import constants, open_model

_WIDE = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
_INTEGER: dict[Scheme, tuple[Any, Any]] = {
    "int8": (tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.int8),
    "uint8": (tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.uint8),
    "int16x8": (_WIDE, tf.int16),
}
"""The operators of a scheme, and the numbers at the model's ends."""


def convert(
    model: tf.keras.Model, scheme: Scheme, representative: np.ndarray, *, one_scale: bool = False
) -> bytes:
    """Convert with a batch of 1, all weights stored densely.

    Args:
        model: one input, one output; with fake-quantization for PQAT models.
        representative: [n, *input_shape] from training data; used by int8, in the model's dtype.
        one_scale: quantize fully connected weights with one scale instead of one for each output.
            tflite-runtime 2.14's sparse int8 kernel ignores all scales but the first and answers
            wrong, and its dense one is too old for several of them with float activations.

    Raises:
        EdgesparseError: the converter does not take the model.
    """
    try:
        with temporary_folder() as folder:
            if scheme in _INTEGER:
                _unroll(model)
            _export(model, str(folder))
            converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
            dtype = tf.as_dtype(model.inputs[0].dtype).as_numpy_dtype
            _set_up(converter, scheme, representative.astype(dtype), one_scale)
            return positive_zeros(converter.convert())
    except Exception as error:
        reason = cause_of(error)
        raise EdgesparseError(f"the TFLite converter does not take this model: {reason}") from error


def _unroll(model: tf.keras.Model) -> None:
    """Let recurrent layers be a step after another in the graph: the quantizer crashes on loops
    (TensorFlow 2.21). An LSTM becomes one operator, which it knows."""
    layers = tf.keras.layers
    for layer in model._flatten_layers(recursive=True, include_self=False):
        looped = isinstance(layer, layers.GRU | layers.SimpleRNN | layers.ConvLSTM2D | layers.RNN)
        if looped and not isinstance(layer, layers.LSTM):
            layer.unroll = True
            layer._could_use_gpu_kernel = False


def _export(model: tf.keras.Model, folder: str) -> None:
    """Save the model's inference, and nothing else of it.

    Given a Keras model, the converter would have Keras trace every layer on its own, to be trained
    on later: three times the time, for a file that differs in one byte, its provenance.
    """
    # A fixed batch: with an open one Keras' Reshape becomes a computed shape, which makes tensors
    # dynamic and keeps XNNPACK away.
    inputs = tf.keras.Input(
        batch_shape=(1, *model.inputs[0].shape[1:]), dtype=model.inputs[0].dtype
    )
    fixed = tf.keras.Model(inputs, model(inputs, training=False))
    signature = [tf.TensorSpec(inputs.shape, inputs.dtype, name=inputs.name)]
    infer = tf.function(
        lambda x: {fixed.output_names[0]: fixed(x, training=False)}, input_signature=signature
    )
    holder = tf.Module()
    holder.weights = fixed.variables
    # With debug information the operators keep their layers' names.
    options = tf.saved_model.SaveOptions(save_debug_info=True)
    tf.saved_model.save(holder, folder, infer.get_concrete_function(), options)


def _set_up(converter: Any, scheme: Scheme, representative: np.ndarray, one_scale: bool) -> None:
    if scheme != "f32":
        # Without it the converter ignores every other wish.
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "f16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme in _INTEGER:

        def samples() -> Iterator[list[np.ndarray]]:
            for sample in representative:
                yield [sample[np.newaxis]]

        operators, ends = _INTEGER[scheme]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [operators]
        # Tokens and other integers come as they are.
        if representative.dtype.kind == "f":
            converter.inference_input_type = ends
        converter.inference_output_type = ends
    converter._experimental_disable_per_channel_quantization_for_dense_layers = one_scale


def positive_zeros(content: bytes) -> bytes:
    """The same model with 0.0 for each -0.0 among its weights.

    Masks and folded batch normalizations make them; they are equal numbers, but other bytes.
    """
    changed = bytearray(content)
    model = open_model(changed, "model.tflite")
    for constant in constants(model):
        if constant.values.dtype.kind == "f":
            values = constant.values
            values[values == 0] = 0
    return bytes(changed)
