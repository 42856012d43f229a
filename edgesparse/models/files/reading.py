"""Saved models: detects the format of a file and loads it as a Keras 2 model."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tensorflow as tf

from edgesparse.models.files import keras3, saved_model, tflite_file, tfmot_wrappers
from edgesparse.spec.code.saved_models import TFLITE
from edgesparse.spec.errors import UsageError, cause_of

LAMBDA_NOTE = "the file contains Lambda layers; their code was executed"
KERAS_3_NOTE = (
    "saved by Keras 3, rebuilt in Keras 2 (required by the pruning toolkit); outputs of both are "
    "equal"
)


def read(
    path: Path, custom_objects: Mapping[str, Any] | None = None, *, trusted: bool = False
) -> tuple[tf.keras.Model, tuple[str, ...]]:
    """Load a saved model, with notes on how it was read.

    Args:
        path: a .keras or .h5 file of Keras 2 or 3, a SavedModel folder, or a .tflite file.
        custom_objects: layers and functions of the user's file, by name.
        trusted: the file was saved by an earlier stage: wrappers are kept, without notes.

    Raises:
        UsageError: it cannot be read; the message has the reason and what to do.
    """
    if path.is_dir():
        return saved_model.read(path)
    if path.suffix == TFLITE:
        return tflite_file.read(path)
    try:
        version = _version(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path.name} cannot be read: {cause_of(error)}") from error
    objects = dict(custom_objects or {})
    if version.startswith("3"):
        return keras3.read(path, objects), (KERAS_3_NOTE,)
    objects |= {f"Custom>{name}": value for name, value in objects.items()}
    # Lambda layers are code in the file, which Keras runs only if told that the file is trusted: it
    # is the user's, named in the user's pipeline.
    options = {"safe_mode": False} if path.suffix == ".keras" else {}
    try:
        with ExitStack() as scopes:
            for scope in tfmot_wrappers.scopes():
                scopes.enter_context(scope)
            if tfmot_wrappers.is_quantized(path):
                return tfmot_wrappers.read_quantized(path, objects), (
                    tfmot_wrappers.QUANTIZED_NOTE,
                )
            model = tf.keras.models.load_model(
                path, compile=False, custom_objects=objects, **options
            )
    except Exception as error:
        raise UsageError(f"{path.name} cannot be read: {_explain(error, path)}") from error
    notes = []
    if any(isinstance(part, tf.keras.layers.Lambda) for part in model._flatten_layers()):
        notes.append(LAMBDA_NOTE)
    if not trusted:
        model, wrapper_notes = tfmot_wrappers.unwrap(model)
        notes += wrapper_notes
    return model, tuple(notes)


_UNKNOWN = re.compile(
    r"Unknown (?:layer|object|\w+ function)\b|[Uu]nknown layer|Could not locate (?:class|function)"
    r"|Cannot deserialize object of type|Received: layer=\w+ of type <class 'str'>"
)
_NAMES = tuple(
    re.compile(pattern)
    for pattern in (
        r"layer=(\w+)",
        r"'config': '(\w+)'",
        r"(?:: |class |function |type )['`](\w+)['`]",
    )
)
"""Patterns of the unknown object's name in Keras' messages."""


def _explain(error: Exception, path: Path) -> str:
    """Return the reason why Keras cannot load a file, with what to do."""
    reason = cause_of(error)
    builder = (
        "name the function that builds the model, with this file as its weights: in a pipeline "
        f"model: {{ref: my_model.py:build, weights: {path.name}}}, for compress --builder "
        "my_model.py:build"
    )
    if "<lambda>" in reason or "Improper config format for {'value'" in reason:
        kind = "an activation, initializer, regularizer or constraint"
        return f"it has a lambda as {kind}, which Keras cannot load; {builder}"
    if not _UNKNOWN.search(reason):
        return f"{reason}; if it was saved by another version of Keras, {builder}"
    names = [match[1] for pattern in _NAMES if (match := pattern.search(reason))]
    if not names or names[0] == "function":  # Keras' message lacks the name.
        return f"{reason.partition('. ')[0].rstrip('.')}; {builder}"
    return f'{names[0]} is unknown to Keras; add it: custom_objects: ["my_layers.py:{names[0]}"]'


def _version(path: Path) -> str:
    """Read the version of Keras that saved a file. Raises UsageError if it has weights only."""
    if path.suffix == ".keras" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json")).get("keras_version", "2"))
    import h5py

    if not h5py.is_hdf5(path):
        if path.suffix == ".keras" and path.read_bytes()[:200].startswith(
            b"version https://git-lf"
        ):
            raise UsageError(
                f"{path.name} is a Git LFS pointer; fetch the file with 'git lfs pull'"
            )
        raise UsageError(f"{path.name} is not a saved Keras model, or is incomplete")
    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise UsageError(
                f"{path.name} contains weights only; name the function that builds the model, with "
                "this file as its weights: in a pipeline model: "
                f"{{ref: my_model.py:build, weights: {path.name}}}, for compress --builder "
                "my_model.py:build"
            )
        return str(file.attrs.get("keras_version", "2"))
