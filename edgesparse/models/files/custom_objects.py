"""The user's own layers and other Keras objects (custom_objects), for Keras to load a file."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from edgesparse.spec.code import references
from edgesparse.spec.code.saved_models import is_saved
from edgesparse.spec.pipeline import ModelSource


def custom_objects(source: ModelSource, base: Path) -> dict[str, Any]:
    """Return the layers and other Keras objects that the user's files define, by name.

    Importing the files also runs their registrations with Keras.

    Raises:
        UsageError: a file or an object does not exist, or importing fails.
    """
    objects: dict[str, Any] = {}
    if source.ref is not None and not is_saved(source):
        objects |= _objects_in_module(references.find("models", None, source.ref, base))
    for ref in source.custom_objects:
        target = references.find("layers", None, ref, base, classes=True)
        objects |= {**_objects_in_module(target), target.function: references.load(target)}
    # Registered globally, too: tfmot clones models without passing custom objects.
    tf.keras.utils.get_custom_objects().update(objects)
    return objects


def _objects_in_module(target: references.Target) -> dict[str, Any]:
    """Return the Keras classes and the functions that a user's file defines."""
    module = sys.modules[references.load(target).__module__]
    kinds = (
        tf.keras.layers.Layer,
        tf.keras.regularizers.Regularizer,
        tf.keras.constraints.Constraint,
        tf.keras.initializers.Initializer,
    )
    return {
        name: value
        for name, value in vars(module).items()
        if (isinstance(value, type) and issubclass(value, kinds))
        or (inspect.isfunction(value) and value.__module__ == module.__name__)
    }
