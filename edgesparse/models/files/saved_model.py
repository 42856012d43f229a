"""SavedModel folders: a graph without layers, to be converted and measured, not trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from edgesparse.spec.errors import UsageError, cause_of

_NAMES = ("serving_default", "serve")


class SavedGraph(tf.keras.layers.Layer):
    """A signature of a SavedModel as a layer; its variables are non-trainable weights.

    Input and output: those of the signature, [batch, ...].
    """

    def __init__(self, loaded: Any, signature: Any, **named: Any) -> None:
        super().__init__(trainable=False, **named)
        self._loaded, self._signature = loaded, signature
        (self._source,) = signature.structured_input_signature[1]
        for variable in signature.variables:
            self._non_trainable_weights.append(variable)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        (output,) = self._signature(**{self._source: x}).values()
        return output


def read(folder: Path) -> tuple[tf.keras.Model, tuple[str, ...]]:
    """Load the serving signature of a SavedModel, or its first, as a Keras model, with notes.

    Raises:
        UsageError: it cannot be loaded, or has no signature with one input and one output.
    """
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:
        raise UsageError(f"{folder.name} is not a valid SavedModel: {cause_of(error)}") from error
    signatures = dict(loaded.signatures)
    name = next((name for name in _NAMES if name in signatures), None)
    if name is None and signatures:
        name = next(iter(signatures))
    if name is None:
        raise UsageError(f"{folder.name} has no signature; save it with signatures to convert it")
    signature = signatures[name]
    specs, results = signature.structured_input_signature[1], signature.structured_outputs
    if len(specs) != 1 or len(results) != 1:
        raise UsageError(
            f"{folder.name}: signature {name!r} has {len(specs)} inputs and {len(results)} "
            "outputs; one of each is supported"
        )
    (spec,) = specs.values()
    inputs = tf.keras.Input(spec.shape[1:], dtype=spec.dtype)
    outputs = SavedGraph(loaded, signature, name="saved_graph")(inputs)
    return tf.keras.Model(inputs, outputs), (f"signature {name!r} is converted unchanged",)
