"""What Keras 3 itself reads from a file: its configuration, its weights, and its answers.

    python -m edgesparse.models.files.keras3_reference FILE OBJECTS OUT.npz WHOLE   one line of JSON

A program of its own: one process has either Keras 2 or Keras 3 as tf.keras. OBJECTS is JSON, the
[name, module, file] of each object of the user's own; where WHOLE is not empty, the answers are
those of every layer.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.spec.code import references
from edgesparse.spec.errors import EdgesparseError, UsageError, cause_of
from edgesparse.spec.safe.programs import run_json_module

TIMEOUT_SECONDS = 1800
ENVIRONMENT = {
    "TF_USE_LEGACY_KERAS": "0",
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "-1",
}
CONFIG, INPUT, ANSWER, WEIGHT = "config", "input/", "answer/", "weight/"
"""Names in the .npz: the configuration is JSON, the others are followed by a number, a layer's name
or a layer's path and the weight's place."""
SCALES = (0.5, 1.0, 3.0, 100.0)
"""Of groups of samples: those from 0 to 255 saturate what those around 0 do not reach."""
_EACH = 3
_OPEN_SIZES = (64, 224, 16_000)
"""Tried in turn where a file leaves a size open."""


def reference(path: Path, own: Mapping[str, Any], target: Path, *, whole: bool = False) -> None:
    """Write to `target` what Keras 3 reads from `path`, in a process of its own.

    Raises:
        UsageError: Keras 3 cannot read the file, with the reason and the way out.
    """
    objects = [[name, item.__module__, _source(item)] for name, item in sorted(own.items())]
    words = (path, json.dumps(objects), target, "whole" if whole else "")
    module = "edgesparse.models.files.keras3_reference"
    run_json_module(module, words, path.name, TIMEOUT_SECONDS, environment=ENVIRONMENT)


def _source(item: Any) -> str:
    return str(getattr(sys.modules.get(item.__module__), "__file__", "") or "")


def _own_objects(objects: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The user's own layers and functions, of Keras 3 in this process."""
    found = {}
    for name, module, source in objects:
        importable = None if module.startswith(references.FILE_MODULE) else module
        target = references.Target(f"custom object {name}", Path(source), name, importable)
        found[name] = references.load(target)
    return found


def _loaded(path: Path, own: dict[str, Any]) -> Any:
    import keras

    options: dict[str, Any] = {"compile": False, "safe_mode": False}
    if zipfile.is_zipfile(path):
        return keras.models.load_model(path, custom_objects=own, **options)
    import h5py

    with h5py.File(path) as file:
        config = json.loads(file.attrs["model_config"])
    kinds = [c for c in _subclasses(keras.Operation) if not issubclass(c, keras.layers.Layer)]
    _name_modules(config, {kind.__name__: kind.__module__ for kind in kinds}, own)
    model = keras.saving.deserialize_keras_object(config, custom_objects=own, safe_mode=False)
    model.load_weights(path)
    return model


def _name_modules(
    entry: dict[str, Any], operations: Mapping[str, str], own: Mapping[str, Any]
) -> None:
    """Say of each layer where it is from: an .h5 file does not say whether its Add is a layer or an
    operation on tensors, of which only layers save whether they are trainable."""
    import keras

    kind, config = entry["class_name"], entry["config"]
    entry |= {"module": None, "registered_name": kind}
    if kind in own:
        return
    if kind in operations and not {"trainable", "layers"} & set(config):
        entry["module"] = operations[kind]
    elif "layers" in config:
        entry["module"] = "keras" if kind == "Sequential" else "keras.src.models.functional"
        for inner in config["layers"]:
            _name_modules(inner, operations, own)
    elif hasattr(keras.layers, kind):
        entry["module"] = "keras.layers"
    else:
        return
    entry["registered_name"] = None


def _subclasses(kind: Any) -> list[Any]:
    found = []
    for other in kind.__subclasses__():
        found += [other, *_subclasses(other)]
    return found


def _weights(model: Any, path: str = "") -> dict[str, np.ndarray]:
    """Of each layer, by the names of the models that it lies in and its own."""
    found: dict[str, np.ndarray] = {}
    for layer in model.layers:
        name = f"{path}{layer.name}/"
        if hasattr(layer, "layers") and hasattr(layer, "inputs"):
            found |= _weights(layer, name)
        else:
            for place, weight in enumerate(layer.weights):
                found[f"{WEIGHT}{name}{place}"] = np.asarray(weight)
    return found


def _vocabulary(model: Any) -> int | None:
    sizes = [x.input_dim for x in model._flatten_layers() if type(x).__name__ == "Embedding"]
    return min(sizes, default=None)


def _samples(shape: Sequence[int | None], dtype: str, vocabulary: int | None, size: int) -> Any:
    """Random inputs of one kind; whole numbers where they are read as such."""
    random = np.random.default_rng(0)
    closed = [size if n is None else n for n in shape[1:]]
    count = len(SCALES) * _EACH
    if vocabulary is not None or not dtype.startswith(("float", "bfloat")):
        return random.integers(0, vocabulary or 2, (count, *closed)).astype(dtype)
    values = random.normal(size=(len(SCALES), _EACH, *closed))
    for number, scale in enumerate(SCALES):
        values[number] *= scale
    values[-1] = np.clip(values[-1] + 128, 0, 255)
    return values.reshape(count, *closed).astype("float32")


def _answers(model: Any, whole: bool) -> dict[str, np.ndarray]:
    import keras

    tensors, errors = keras.tree.flatten(model.inputs), []
    asked_for = model
    if whole:
        operations = getattr(model, "operations", model.layers)
        operations = [o for o in operations if type(o).__name__ != "InputLayer"]
        asked_for = keras.Model(model.inputs, {o.name: o.output for o in operations})
    for size in _OPEN_SIZES:
        given = [_samples(t.shape, t.dtype, _vocabulary(model), size) for t in tensors]
        try:
            several = len(given) > 1  # A Sequential does not know its input.
            arguments = keras.tree.pack_sequence_as(asked_for.input, given) if several else given[0]
            outputs = asked_for(arguments, training=False)
        except Exception as problem:
            errors.append(problem)
            continue
        found = {f"{INPUT}{place}": values for place, values in enumerate(given)}
        if not whole:
            outputs = dict(enumerate(keras.tree.flatten(outputs)))
        for name, values in outputs.items():
            if len(keras.tree.flatten(values)) == 1:
                (value,) = keras.tree.flatten(values)
                found[f"{ANSWER}{name}"] = np.asarray(keras.ops.cast(value, "float32"))
        return found
    raise UsageError(f"Keras 3 cannot run it on random inputs: {cause_of(errors[0])}") from errors[
        0
    ]


def write(path: Path, objects: Sequence[Sequence[str]], target: Path, whole: bool) -> None:
    """As `reference` has it done. Raises UsageError."""
    import keras

    own = _own_objects(objects)
    try:
        with keras.saving.custom_object_scope(own):
            model = _loaded(path, own)
            config = keras.saving.serialize_keras_object(model)
    except Exception as error:
        raise UsageError(f"Keras 3 itself cannot read it: {_why(error)}") from error
    if not (isinstance(model, keras.Model) and getattr(model, "inputs", None)):
        raise UsageError("it has no graph of layers in it; name a function that builds the model")
    content = {CONFIG: np.asarray(json.dumps(config)), **_weights(model), **_answers(model, whole)}
    np.savez(target, **content)


def _why(error: Exception) -> str:
    unknown = ("Could not locate class", "Unknown layer", "Could not locate function", "Unknown")
    for word in unknown:
        _, found, after = str(error).partition(word)
        if found:
            name = after.lstrip(" :a-z").split("'")[1] if "'" in after else "one"
            return (
                f'it has no layer {name} (name it: custom_objects: ["my_layers.py:{name}"]); '
                "name a function that builds the model"
            )
    return f"{cause_of(error)}; name a function that builds the model"


def main(path: str, objects: str, target: str, whole: str) -> None:
    wrong = ""
    try:
        write(Path(path), json.loads(objects), Path(target), bool(whole))
    except (EdgesparseError, OSError) as error:
        wrong = f"{Path(path).name} is a file of Keras 3: {error}"
    sys.stdout.write("\n" + json.dumps({"wrong": wrong}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
