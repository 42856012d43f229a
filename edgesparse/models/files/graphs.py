"""SavedModel folders: a graph without layers, to be converted and measured, not to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from edgesparse.spec.errors import UsageError, cause_of

_NAMES = ("serving_default", "serve")


class SavedGraph(tf.keras.layers.Layer):
    """A signature of a SavedModel as a layer; its variables are its weights, none of them trained.

    Takes and gives what the signature does, [batch, ...].
    """

    def __init__(self, loaded: Any, signature: Any, **named: Any) -> None:
        super().__init__(trainable=False, **named)
        self._loaded, self._signature = loaded, signature
        (self._source,) = signature.structured_input_signature[1]
        for variable in signature.variables:
            self._non_trainable_weights.append(variable)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        (answer,) = self._signature(**{self._source: x}).values()
        return answer


def read(folder: Path) -> tuple[tf.keras.Model, tuple[str, ...]]:
    """The signature of a SavedModel as a Keras model.

    Raises:
        UsageError: it has no signature with one input and one output, or an open size.
    """
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:
        raise UsageError(
            f"{folder.name} is no SavedModel that can be read: {cause_of(error)}"
        ) from error
    signatures = dict(loaded.signatures)
    name = next((name for name in _NAMES if name in signatures), None)
    if name is None and signatures:
        name = next(iter(signatures))
    if name is None:
        raise UsageError(f"{folder.name} has no signature that could be converted")
    signature = signatures[name]
    given, answered = signature.structured_input_signature[1], signature.structured_outputs
    if len(given) != 1 or len(answered) != 1:
        raise UsageError(
            f"{folder.name}: its signature {name!r} has {len(given)} inputs and {len(answered)} "
            "outputs; one of each is supported"
        )
    (spec,) = given.values()
    inputs = tf.keras.Input(spec.shape[1:], dtype=spec.dtype)
    outputs = SavedGraph(loaded, signature, name="saved_graph")(inputs)
    return tf.keras.Model(inputs, outputs), (f"its signature {name!r} is converted as it is",)
