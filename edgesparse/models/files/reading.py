"""What kind of file a saved model is, and the Keras 2 model that is in it."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import tensorflow as tf

from edgesparse.models.files import graphs, keras3, wrapped
from edgesparse.spec.errors import UsageError, cause_of

LAMBDA_NOTE = "it has Lambda layers: code in the file, which was run"
KERAS_3_NOTE = (
    "it was saved by Keras 3 and is rebuilt in Keras 2, which the pruning toolkit needs; both "
    "answer alike"
)


def read(
    path: Path, own: Mapping[str, Any] | None = None, *, trusted: bool = False
) -> tuple[tf.keras.Model, tuple[str, ...]]:
    """A saved model, and what is to be said about how it was read.

    Args:
        path: a .keras or .h5 file of Keras 2 or 3, or a SavedModel folder.
        own: what the user's file defines, by name; also found as package>name.
        trusted: it is ours, saved a stage before; nothing is said then.

    Raises:
        UsageError: it cannot be read, with the reason and the way out.
    """
    if path.is_dir():
        return graphs.read(path)
    try:
        version = _version(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path.name} cannot be read: {cause_of(error)}") from error
    given = dict(own or {})
    if version.startswith("3"):
        return keras3.read(path, given), (KERAS_3_NOTE,)
    given |= {f"Custom>{name}": found for name, found in given.items()}
    # Lambda layers are code in the file, which Keras asks its caller to trust: it is the user's
    # own, named in the user's pipeline.
    options = {"safe_mode": False} if path.suffix == ".keras" else {}
    try:
        with ExitStack() as scopes:
            for scope in wrapped.scopes():
                scopes.enter_context(scope)
            if wrapped.is_quantized(path):
                return wrapped.read_quantized(path, given), (wrapped.QUANTIZED_NOTE,)
            model = tf.keras.models.load_model(path, compile=False, custom_objects=given, **options)
    except Exception as error:
        raise UsageError(f"{path.name} cannot be read: {_why(error, path)}") from error
    notes = []
    if any(isinstance(part, tf.keras.layers.Lambda) for part in model._flatten_layers()):
        notes.append(LAMBDA_NOTE)
    if not trusted:
        model, said = wrapped.unwrapped(model)
        notes += said
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
"""The name of what Keras does not know, in its message."""


def _why(error: Exception, path: Path) -> str:
    reason = cause_of(error)
    builder = (
        "name the function that builds the model, and give this file as its weights: "
        f"model: {{ref: my_model.py:build, weights: {path.name}}}"
    )
    if "<lambda>" in reason or "Improper config format for {'value'" in reason:
        kind = "an activation, initializer, regularizer or constraint"
        return f"it has a lambda as {kind}, which Keras cannot read back; {builder}"
    if not _UNKNOWN.search(reason):
        return f"{reason}; if it was saved by another version of Keras, {builder}"
    names = [match[1] for pattern in _NAMES if (match := pattern.search(reason))]
    if not names or names[0] == "function":  # Keras has lost its name.
        return f"{reason.partition('. ')[0].rstrip('.')}; {builder}"
    return (
        f"it uses {names[0]}, which Keras does not know; name it: "
        f'custom_objects: ["my_layers.py:{names[0]}"]'
    )


def _version(path: Path) -> str:
    """The version of Keras that saved a file; UsageError where it holds weights only."""
    if path.suffix == ".keras" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json")).get("keras_version", "2"))
    import h5py

    if not h5py.is_hdf5(path):
        if path.suffix == ".keras" and path.read_bytes()[:200].startswith(
            b"version https://git-lf"
        ):
            raise UsageError(f"{path.name} is a pointer of Git LFS: fetch the file, 'git lfs pull'")
        raise UsageError(f"{path.name} is no saved Keras model, or was not copied whole")
    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise UsageError(
                f"{path.name} holds weights only: name the function that builds the model, and "
                f"give this file beside it: model: {{ref: my_model.py:build, weights: {path.name}}}"
            )
        return str(file.attrs.get("keras_version", "2"))
