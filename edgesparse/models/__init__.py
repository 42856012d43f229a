"""Architectures: one file each, plain Keras builders that return a tf.keras.Model."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesparse.spec import references
from edgesparse.spec.errors import UsageError, cause_of
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


def label(source: Source) -> str:
    """What messages call the model."""
    return source.name or source.ref or "model"


def own_objects(source: Source, base: Path) -> dict[str, Any]:
    """The layers, and whatever else a saved model may refer to by name, that the user's file
    defines; importing it registers with Keras what it registers."""
    import tensorflow as tf

    if source.ref is None or ":" not in source.ref:
        return {}
    builder = references.load(references.find("models", None, source.ref, base))
    module = sys.modules[builder.__module__]
    kinds = (
        tf.keras.layers.Layer,
        tf.keras.regularizers.Regularizer,
        tf.keras.constraints.Constraint,
        tf.keras.initializers.Initializer,
    )
    own = {
        name: found
        for name, found in vars(module).items()
        if (isinstance(found, type) and issubclass(found, kinds))
        or (inspect.isfunction(found) and found.__module__ == module.__name__)
    }
    # Also where Keras makes layers anew on its own, as the toolkit has it do.
    tf.keras.utils.get_custom_objects().update(own)
    return own


def read(
    path: Path, own: Mapping[str, Any] | None = None, *, trusted: bool = False
) -> tf.keras.Model:
    """A saved .keras or .h5 model.

    Args:
        own: what the user's file defines, by name; also found as package>name.
        trusted: whether code in it may run: it is ours, saved a stage before.
    """
    import tensorflow as tf

    given = dict(own or {})
    given |= {f"Custom>{name}": found for name, found in given.items()}
    # Lambda layers are code in the file; Keras asks its caller to trust that, for .keras files.
    options = {"safe_mode": False} if trusted and path.suffix == ".keras" else {}
    try:
        model = tf.keras.models.load_model(path, compile=False, custom_objects=given, **options)
    except Exception as error:
        reason = cause_of(error)
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
