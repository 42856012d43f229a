"""Architectures: one file each, functions that build a tf.keras.Model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesparse.spec.code import references
from edgesparse.spec.code.saved_models import NOT_CONVERTED, is_saved
from edgesparse.spec.errors import UsageError, cause_of
from edgesparse.spec.pipeline import ModelSource

if TYPE_CHECKING:
    import tensorflow as tf


def build(source: ModelSource, base: Path) -> tf.keras.Model:
    """Build or load the model that a pipeline names; `base` is the folder of its YAML file.

    Raises:
        UsageError: it cannot be built or read, or is not a Keras 2 model.
    """
    return build_with_notes(source, base)[0]


def build_with_notes(source: ModelSource, base: Path) -> tuple[tf.keras.Model, tuple[str, ...]]:
    """Build or load a model as `build` does, with notes on how it was read."""
    if source.torch is not None:
        raise UsageError(NOT_CONVERTED.format(source.torch))
    if is_saved(source):
        from edgesparse.models.files.custom_objects import custom_objects
        from edgesparse.models.files.reading import read

        assert source.ref is not None
        model, notes = read(base / source.ref, custom_objects(source, base))
        return _require_keras2(model, source.ref), notes
    import tensorflow as tf

    # Keras numbers default names: dense, dense_1. They must not depend on what was built before in
    # this process.
    tf.keras.backend.reset_uids()
    target = references.find("models", source.name, source.ref, base)
    model = _require_keras2(references.call(target, source.args, {}), target.label)
    if source.weights is not None:
        _load_weights(model, base / source.weights, target.label)
    return model, ()


def _load_weights(model: tf.keras.Model, path: Path, label: str) -> None:
    """Load the weights of a file into a model. Raises UsageError if they do not fit."""
    try:
        model.load_weights(path)
    except Exception as error:
        raise UsageError(
            f"the weights in {path.name} do not fit the model of {label}: {cause_of(error)}"
        ) from error


def label(source: ModelSource) -> str:
    """Return the name of the model in messages."""
    return source.name or source.ref or source.torch or "model"


def _require_keras2(model: Any, label: str) -> tf.keras.Model:
    import tensorflow as tf

    if isinstance(model, tf.keras.Model):
        return model
    kind = type(model)
    # Recognized by module name: importing Keras 3 takes seconds.
    if any(base.__module__.startswith("keras.") for base in kind.__mro__):
        raise UsageError(
            f"{label} returned a Keras 3 model, which TensorFlow's pruning toolkit does not "
            "support; build it with tf.keras (import tensorflow as tf), not with 'import keras'"
        )
    raise UsageError(f"{label} returned {kind.__name__}; it must return a tf.keras.Model")
