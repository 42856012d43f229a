"""Conversion of a stage's model: a Keras model by TensorFlow, a .tflite file by its quantizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast, get_args

from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Scheme

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    Samples = np.ndarray[Any, Any] | Sequence[np.ndarray[Any, Any]]


def to_tflite(
    model: tf.keras.Model,
    scheme: Scheme,
    representative: Samples,
    *,
    one_scale: bool = False,
    open_shapes: Sequence[tuple[int | None, ...] | None] = (),
) -> bytes:
    """Convert a model, see `tflite.convert.convert`; of one that runs a .tflite file, return that
    file, quantized by `scheme`.

    Raises:
        EdgesparseError: the converter or the quantizer fails.
    """
    from edgesparse.models.files.tflite_file import content_of
    from edgesparse.tflite import convert

    file = content_of(model)
    if file is None:
        return convert.convert(
            model, scheme, representative, one_scale=one_scale, open_shapes=open_shapes
        )
    if any(open_shapes):
        raise EdgesparseError(f"{convert.CONVERSION_FAILED}a .tflite file keeps its sizes")
    return file if scheme == "f32" else _quantized(file, model, scheme, representative)


def _quantized(
    file: bytes, model: tf.keras.Model, scheme: Scheme, representative: Samples
) -> bytes:
    import numpy as np

    from edgesparse.tflite.convert import CONVERSION_FAILED
    from edgesparse.tflite.post_training import quantize

    if scheme not in get_args(quantize.DenseScheme):
        raise EdgesparseError(
            f"{CONVERSION_FAILED}a .tflite file cannot become {scheme}; use int8, dynamic or f16"
        )
    arrays = [representative] if isinstance(representative, np.ndarray) else representative
    samples = {
        name: values.astype(tensor.dtype.as_numpy_dtype)
        for name, values, tensor in zip(model.input_names, arrays, model.inputs, strict=True)
    }
    return quantize.quantized(file, "the model", cast(quantize.DenseScheme, scheme), samples)
