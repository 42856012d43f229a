"""Architectures: one file each, plain Keras builders that return a tf.keras.Model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesparse.spec import references
from edgesparse.spec.errors import UsageError
from edgesparse.spec.load import is_saved_model
from edgesparse.spec.pipeline import Source

if TYPE_CHECKING:
    import tensorflow as tf


def build(source: Source, base: Path) -> tf.keras.Model:
    """The untrained or saved model that a pipeline names; `base` is the folder of its YAML file.

    Raises:
        UsageError: it cannot be built or read, or is not a Keras 2 model.
    """
    if is_saved_model(source):
        assert source.ref is not None
        return read(base / source.ref)
    target = references.find("models", source.name, source.ref, base)
    return _checked(references.call(target, source.args, {}), target.label)


def import_own(source: Source, base: Path) -> None:
    """Import the user's file that builds the model, for the layers it registers with Keras."""
    if source.ref is not None and ":" in source.ref:
        references.load(references.find("models", None, source.ref, base))


def read(path: Path) -> tf.keras.Model:
    """A saved .keras or .h5 model."""
    import tensorflow as tf

    try:
        model = tf.keras.models.load_model(path, compile=False)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UsageError(
            f"{path.name} cannot be read as a Keras 2 model: {reason}; "
            "save it with TF_USE_LEGACY_KERAS=1 set, and import the file that defines its "
            "own layers"
        ) from error
    return _checked(model, path.name)


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
