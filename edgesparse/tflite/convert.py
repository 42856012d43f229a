"""From a Keras model to .tflite bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Scheme


def convert(
    model: tf.keras.Model, scheme: Scheme, representative: np.ndarray, *, sparse: bool = False
) -> bytes:
    """Convert with a batch of 1.

    Args:
        model: one input, one output; with fake-quantization for PQAT models.
        representative: float32 [n, *input_shape] from training data; used by int8.
        sparse: store weights with at least 30 % zeros in TFLite's sparse form. The converter does
            this for all such weights or none (its EXPERIMENTAL_SPARSITY).

    Raises:
        EdgesparseError: the converter does not take the model.
    """
    # A fixed batch: with an open one Keras' Reshape becomes a computed shape, which makes tensors
    # dynamic and keeps XNNPACK away.
    inputs = tf.keras.Input(
        batch_shape=(1, *model.inputs[0].shape[1:]), dtype=model.inputs[0].dtype
    )
    converter = tf.lite.TFLiteConverter.from_keras_model(
        tf.keras.Model(inputs, model(inputs, training=False))
    )
    optimizations = []
    if scheme != "f32":
        optimizations.append(tf.lite.Optimize.DEFAULT)
    if scheme == "f16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme == "int8":

        def samples() -> Iterator[list[np.ndarray]]:
            for sample in representative:
                yield [sample[np.newaxis].astype(np.float32)]

        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    if sparse:
        # tflite-runtime 2.14 runs its 1x16 int8 kernel on fully connected weights with a scale per
        # output, ignores all scales but the first and answers wrong; one scale per tensor is right
        # in every runtime. Convolutions keep a scale per channel.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
        optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    converter.optimizations = optimizations
    try:
        return bytes(converter.convert())
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise EdgesparseError(f"the TFLite converter does not take this model: {reason}") from error
