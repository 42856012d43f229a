"""Converts a Keras model to .tflite bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import tensorflow as tf
from tf_keras.src import backend

from edgesparse.methods.network.functional import through
from edgesparse.spec.errors import EdgesparseError, cause_of
from edgesparse.spec.pipeline import Scheme
from edgesparse.spec.safe.temporary_folders import temporary_folder
from edgesparse.tflite.format.converter_fixes import fix_converter_output

_WIDE = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
_INTEGER: dict[Scheme, tuple[Any, Any]] = {
    "int8": (tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.int8),
    "uint8": (tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.uint8),
    "int16x8": (_WIDE, tf.int16),
}
"""The operators of a scheme, and the dtype of the model's inputs and outputs."""

CONVERSION_FAILED = "TFLite conversion failed: "
"""What the converter's errors begin with, before the reason."""


def convert(
    model: tf.keras.Model,
    scheme: Scheme,
    representative: np.ndarray | Sequence[np.ndarray],
    *,
    one_scale: bool = False,
    open_shapes: Sequence[tuple[int | None, ...] | None] = (),
) -> bytes:
    """Convert with a batch of 1, all weights stored densely.

    Args:
        model: flat; with fake-quantization for PQAT models.
        representative: for each input [n, *its shape] from training data (of one input alone, or
            in a list); used by int8, in the model's dtype.
        one_scale: quantize fully connected weights with one scale instead of one for each output.
            tflite-runtime 2.14's sparse int8 kernel ignores all scales but the first and answers
            wrong, and its dense one is too old for several of them with float activations.
        open_shapes: of each input, without the batch, where the file is to leave sizes open.

    Raises:
        EdgesparseError: the converter fails.
    """
    try:
        with temporary_folder() as folder:
            if scheme in _INTEGER:
                _unroll(model, scheme)
            with _without_loops() if scheme in _INTEGER else nullcontext():
                _export(model, str(folder), open_shapes)
            converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
            arrays = [representative] if isinstance(representative, np.ndarray) else representative
            samples = {
                name: values.astype(tf.as_dtype(tensor.dtype).as_numpy_dtype)
                for name, values, tensor in zip(_names(model), arrays, model.inputs, strict=True)
            }
            _set_up(converter, scheme, samples, one_scale)
            return fix_converter_output(converter.convert())
    except Exception as error:
        foreign = re.search(r"TF Select ops: ([^\n]*)", str(error))
        if foreign:
            reason = (
                f"TFLite has no operator for {foreign[1].strip()}; "
                f"{_way_out(model, _complex(str(error)))}"
            )
        else:
            reason = cause_of(error)
        raise EdgesparseError(f"{CONVERSION_FAILED}{reason}") from error


def _complex(message: str) -> bool:
    """Return True where an operator without a counterpart computes with complex numbers."""
    return "complex<" in message.partition("Details:")[2].partition("\n\n")[0]


def _way_out(model: tf.keras.Model, is_complex: bool) -> str:
    """Suggest what to do about layers that TFLite lacks operators for."""
    signal = [x.name for x in model.layers if x.name.startswith(("tf.signal.", "tf.audio."))]
    if not signal and not is_complex:
        return "replace the layers that use it"
    layers = ", ".join(signal) or "layers that compute with complex numbers"
    return (
        f"the model computes spectra itself ({layers}): remove these layers, and compute the "
        "spectra with the data (audio-folder does)"
    )


def _unroll(model: tf.keras.Model, scheme: Scheme) -> None:
    """Unroll recurrent layers in the graph: the quantizer crashes on loops (TensorFlow 2.21). An
    LSTM becomes one operator, which it supports in all schemes but int16x8."""
    layers = tf.keras.layers
    for layer in model._flatten_layers(recursive=True, include_self=False):
        # Convolutional ones reject the attribute; see _without_loops.
        convolutional = "ConvLSTM" in type(layer).__name__
        if (
            isinstance(layer, layers.RNN)
            and not convolutional
            and not (isinstance(layer, layers.LSTM) and scheme != "int16x8")
        ):
            layer.unroll = True
            layer._could_use_gpu_kernel = False


@contextmanager
def _without_loops() -> Iterator[None]:
    """Unroll convolutional recurrent layers within the block: they ignore their `unroll`."""
    looped = backend.rnn

    def unrolled(*args: Any, **kwargs: Any) -> Any:
        return looped(*args, **{**kwargs, "unroll": True})

    backend.rnn = unrolled
    try:
        yield
    finally:
        backend.rnn = looped


def _names(model: tf.keras.Model) -> list[str]:
    """Name the inputs as the file's signature does."""
    return [str(name) for name in model.input_names]


def _export(
    model: tf.keras.Model, folder: str, open_shapes: Sequence[tuple[int | None, ...] | None]
) -> None:
    """Save the model's inference function alone.

    Given a Keras model, the converter would have Keras trace every layer on its own, to be trained
    on later: three times the time, for a file that differs in one byte, its provenance.
    """
    # A fixed batch: with an open one Keras' Reshape becomes a computed shape, which makes tensors
    # dynamic and keeps XNNPACK away.
    shapes = [*open_shapes, *[None] * (len(model.inputs) - len(open_shapes))]
    inputs = [
        tf.keras.Input(batch_shape=(1, *(shape or t.shape[1:])), dtype=t.dtype)
        for t, shape in zip(model.inputs, shapes, strict=True)
    ]
    x = inputs[0] if len(inputs) == 1 else inputs
    if any(open_shapes):  # Its layers are called again: the model itself checks its sizes.
        fixed = tf.keras.Model(x, through(model, inputs, False))
        _require_open(fixed, model)
    else:
        fixed = tf.keras.Model(x, model(x, training=False))
    signature = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=name)
        for tensor, name in zip(inputs, _names(model), strict=True)
    ]

    def predict(*xs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = fixed(xs[0] if len(xs) == 1 else list(xs), training=False)
        values = outputs if isinstance(outputs, list | tuple) else [outputs]
        return dict(zip(model.output_names, values, strict=True))

    infer = tf.function(predict, input_signature=signature)
    holder = tf.Module()
    holder.weights = fixed.variables
    # With debug information the operators keep their layers' names.
    options = tf.saved_model.SaveOptions(save_debug_info=True)
    tf.saved_model.save(holder, folder, infer.get_concrete_function(), options)


def _require_open(opened: tf.keras.Model, model: tf.keras.Model) -> None:
    """Raise the layers' error where they accept a single size only, though no shape says so."""
    longer = []
    for tensor, fixed in zip(opened.inputs, model.inputs, strict=True):
        sizes = [f + 3 if s is None else s for s, f in zip(tensor.shape, fixed.shape, strict=True)
                 if s is not None or f is not None]  # fmt: skip
        longer.append(tf.zeros(sizes, tensor.dtype))
    outputs = opened(longer[0] if len(longer) == 1 else longer, training=False)
    for output in tf.nest.flatten(outputs):
        if output.shape[0] != 1:
            raise ValueError("a layer reshapes one size only")


def _set_up(
    converter: Any, scheme: Scheme, representative: Mapping[str, np.ndarray], one_scale: bool
) -> None:
    if scheme != "f32":
        # Without it the converter ignores every other setting.
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "f16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme in _INTEGER:

        def samples() -> Iterator[dict[str, np.ndarray]]:
            for number in range(min(map(len, representative.values()))):
                yield {name: values[number][None] for name, values in representative.items()}

        operators, dtype = _INTEGER[scheme]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [operators]
        # Tokens and other integers are not quantized.
        if all(values.dtype.kind == "f" for values in representative.values()):
            converter.inference_input_type = dtype
        converter.inference_output_type = dtype
    converter._experimental_disable_per_channel_quantization_for_dense_layers = one_scale
