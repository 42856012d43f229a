"""Architectures: one file each, plain Keras builders that return a tf.keras.Model."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesparse.spec.code import references
from edgesparse.spec.code.saved import is_saved
from edgesparse.spec.errors import UsageError, cause_of
from edgesparse.spec.pipeline import ModelSource

if TYPE_CHECKING:
    import tensorflow as tf


def build(source: ModelSource, base: Path) -> tf.keras.Model:
    """The untrained or saved model that a pipeline names; `base` is the folder of its YAML file.

    Raises:
        UsageError: it cannot be built or read, or is not a Keras 2 model.
    """
    return build_noted(source, base)[0]


def build_noted(source: ModelSource, base: Path) -> tuple[tf.keras.Model, tuple[str, ...]]:
    """The same, and what is to be said about how it was made."""
    if is_saved(source):
        from edgesparse.models.files.reading import read

        assert source.ref is not None
        model, notes = read(base / source.ref, own_objects(source, base))
        return _checked(model, source.ref), notes
    import tensorflow as tf

    # Keras counts the names it gives: dense, dense_1. Whoever builds the model, and whatever was
    # built before in this process, its layers are called the same.
    tf.keras.backend.reset_uids()
    target = references.find("models", source.name, source.ref, base)
    model = _checked(references.call(target, source.args, {}), target.label)
    if source.weights is not None:
        _load_weights(model, base / source.weights, target.label)
    return model, ()


def _load_weights(model: tf.keras.Model, path: Path, label: str) -> None:
    """The weights of a file into a model that was built; UsageError where they do not fit."""
    try:
        model.load_weights(path)
    except Exception as error:
        raise UsageError(
            f"the weights in {path.name} do not fit the model of {label}: {cause_of(error)}"
        ) from error


def label(source: ModelSource) -> str:
    """What messages call the model."""
    return source.name or source.ref or "model"


def own_objects(source: ModelSource, base: Path) -> dict[str, Any]:
    """The layers, and whatever else a saved model may refer to by name, that the user's files
    define; importing them registers with Keras what they register."""
    import tensorflow as tf

    own: dict[str, Any] = {}
    if source.ref is not None and not is_saved(source):
        own |= _defined_beside(references.find("models", None, source.ref, base))
    for ref in source.custom_objects:
        target = references.find("models", None, ref, base, classes=True)
        own |= {**_defined_beside(target), target.function: references.load(target)}
    # Also where Keras makes layers anew on its own, as the toolkit has it do.
    tf.keras.utils.get_custom_objects().update(own)
    return own


def _defined_beside(target: references.Target) -> dict[str, Any]:
    """What of a model a user's file defines."""
    import tensorflow as tf

    module = sys.modules[references.load(target).__module__]
    kinds = (
        tf.keras.layers.Layer,
        tf.keras.regularizers.Regularizer,
        tf.keras.constraints.Constraint,
        tf.keras.initializers.Initializer,
    )
    return {
        name: found
        for name, found in vars(module).items()
        if (isinstance(found, type) and issubclass(found, kinds))
        or (inspect.isfunction(found) and found.__module__ == module.__name__)
    }


def _checked(model: Any, label: str) -> tf.keras.Model:
    import tensorflow as tf

    if isinstance(model, tf.keras.Model):
        return model
    kind = type(model)
    # Recognized by its name: importing Keras 3 for that would take seconds.
    if any(base.__module__.startswith("keras.") for base in kind.__mro__):
        raise UsageError(
            f"{label} returned a Keras 3 model, which TensorFlow's pruning toolkit cannot take; "
            "build it with tf.keras (import tensorflow as tf), not with 'import keras'"
        )
    raise UsageError(f"{label} returned {kind.__name__}; it must return a tf.keras.Model")
