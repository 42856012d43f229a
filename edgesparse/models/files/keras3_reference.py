"""Reference of a Keras 3 file, computed by Keras 3: configuration, weights and outputs.

    python -m edgesparse.models.files.keras3_reference FILE OBJECTS OUT.npz WHOLE   one line of JSON

Runs in a child process: a process has either Keras 2 or Keras 3 as tf.keras. OBJECTS is JSON, the
[name, module, file] of each custom object of the user; if WHOLE is not empty, outputs of every
layer are written.
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
from edgesparse.spec.errors import UsageError, cause_of
from edgesparse.spec.safe.isolated_python import print_json_reply, run_json_module

TIMEOUT_SECONDS = 1800
ENVIRONMENT = {
    "TF_USE_LEGACY_KERAS": "0",
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "-1",
}
CONFIG, INPUT, OUTPUT, WEIGHT = "config", "input/", "output/", "weight/"
"""Names in the .npz: the configuration is JSON, the others are followed by an index, a layer's name
or a layer's path and the weight's index."""
SCALES = (0.5, 1.0, 3.0, 100.0)
"""Scales of groups of samples; those of pixels, 0 to 255, saturate activations that small ones do
not."""
_SAMPLES_PER_SCALE = 3
_DYNAMIC_SIZES = (64, 224, 16_000)
"""Tried in turn for dynamic sizes: sequences, images, audio."""


def write_in_child(
    path: Path, custom_objects: Mapping[str, Any], target: Path, *, whole: bool = False
) -> None:
    """Call `write` in a child process with Keras 3.

    Args:
        custom_objects: layers and functions of the user's file, by name.
        target: the .npz to write.
        whole: whether to write the outputs of every layer.

    Raises:
        UsageError: Keras 3 cannot read the file; the message has the reason and what to do.
    """
    objects = [
        [name, item.__module__, _source(item)] for name, item in sorted(custom_objects.items())
    ]
    arguments = (path, json.dumps(objects), target, "whole" if whole else "")
    module = "edgesparse.models.files.keras3_reference"
    run_json_module(module, arguments, path.name, TIMEOUT_SECONDS, environment=ENVIRONMENT)


def _source(item: Any) -> str:
    return str(getattr(sys.modules.get(item.__module__), "__file__", "") or "")


def _load_objects(objects: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Load the user's layers and functions with Keras 3."""
    loaded = {}
    for name, module, source in objects:
        importable = None if module.startswith(references.FILE_MODULE) else module
        target = references.Target(f"custom object {name}", Path(source), name, importable)
        loaded[name] = references.load(target)
    return loaded


def _load_model(path: Path, custom_objects: dict[str, Any]) -> Any:
    import keras

    options: dict[str, Any] = {"compile": False, "safe_mode": False}
    if zipfile.is_zipfile(path):
        return keras.models.load_model(path, custom_objects=custom_objects, **options)
    import h5py

    with h5py.File(path) as file:
        config = json.loads(file.attrs["model_config"])
    kinds = [c for c in _subclasses(keras.Operation) if not issubclass(c, keras.layers.Layer)]
    operations = {kind.__name__: kind.__module__ for kind in kinds}
    _add_modules(config, operations, custom_objects)
    model = keras.saving.deserialize_keras_object(
        config, custom_objects=custom_objects, safe_mode=False
    )
    model.load_weights(path)
    return model


def _add_modules(
    entry: dict[str, Any], operations: Mapping[str, str], custom_objects: Mapping[str, Any]
) -> None:
    """Add the module to each layer's entry: an .h5 file does not tell whether Add is a layer or an
    operation on tensors; only layers have `trainable` in their configuration."""
    import keras

    kind, config = entry["class_name"], entry["config"]
    entry |= {"module": None, "registered_name": kind}
    if kind in custom_objects:
        return
    if kind in operations and not {"trainable", "layers"} & set(config):
        entry["module"] = operations[kind]
    elif "layers" in config:
        entry["module"] = "keras" if kind == "Sequential" else "keras.src.models.functional"
        for inner in config["layers"]:
            _add_modules(inner, operations, custom_objects)
    elif hasattr(keras.layers, kind):
        entry["module"] = "keras.layers"
    else:
        return
    entry["registered_name"] = None


def _subclasses(kind: Any) -> list[Any]:
    subclasses = []
    for subclass in kind.__subclasses__():
        subclasses += [subclass, *_subclasses(subclass)]
    return subclasses


def _weights(model: Any, path: str = "") -> dict[str, np.ndarray]:
    """Return each layer's weights by the path of its models and its name."""
    weights: dict[str, np.ndarray] = {}
    for layer in model.layers:
        name = f"{path}{layer.name}/"
        if hasattr(layer, "layers") and hasattr(layer, "inputs"):
            weights |= _weights(layer, name)
        else:
            for index, weight in enumerate(layer.weights):
                weights[f"{WEIGHT}{name}{index}"] = np.asarray(weight)
    return weights


def _vocabulary(model: Any) -> int | None:
    """Return the smallest vocabulary of the embeddings; None without embeddings."""
    sizes = [x.input_dim for x in model._flatten_layers() if type(x).__name__ == "Embedding"]
    return min(sizes, default=None)


def _samples(shape: Sequence[int | None], dtype: str, vocabulary: int | None, size: int) -> Any:
    """Draw random values of an input: integers below `vocabulary` for embeddings; dynamic sizes are
    `size`."""
    random = np.random.default_rng(0)
    fixed = [size if n is None else n for n in shape[1:]]
    count = len(SCALES) * _SAMPLES_PER_SCALE
    if vocabulary is not None or not dtype.startswith(("float", "bfloat")):
        return random.integers(0, vocabulary or 2, (count, *fixed)).astype(dtype)
    values = random.normal(size=(len(SCALES), _SAMPLES_PER_SCALE, *fixed))
    for number, scale in enumerate(SCALES):
        values[number] *= scale
    values[-1] = np.clip(values[-1] + 128, 0, 255)
    return values.reshape(count, *fixed).astype("float32")


def _inputs_and_outputs(model: Any, whole: bool) -> dict[str, np.ndarray]:
    """Run the model on random inputs; with `whole`, return the outputs of every layer."""
    import keras

    tensors, errors = keras.tree.flatten(model.inputs), []
    evaluated = model
    if whole:
        operations = getattr(model, "operations", model.layers)
        operations = [o for o in operations if type(o).__name__ != "InputLayer"]
        evaluated = keras.Model(model.inputs, {o.name: o.output for o in operations})
    for size in _DYNAMIC_SIZES:
        samples = [_samples(t.shape, t.dtype, _vocabulary(model), size) for t in tensors]
        try:
            several = len(samples) > 1  # A Sequential has no input structure.
            arguments = samples[0]
            if several:
                arguments = keras.tree.pack_sequence_as(evaluated.input, samples)
            outputs = evaluated(arguments, training=False)
        except Exception as problem:
            errors.append(problem)
            continue
        arrays = {f"{INPUT}{index}": values for index, values in enumerate(samples)}
        if not whole:
            outputs = dict(enumerate(keras.tree.flatten(outputs)))
        for name, values in outputs.items():
            if len(keras.tree.flatten(values)) == 1:
                (value,) = keras.tree.flatten(values)
                arrays[f"{OUTPUT}{name}"] = np.asarray(keras.ops.cast(value, "float32"))
        return arrays
    raise UsageError(f"Keras 3 cannot run it on random inputs: {cause_of(errors[0])}") from errors[
        0
    ]


def write(path: Path, objects: Sequence[Sequence[str]], target: Path, whole: bool) -> None:
    """Write configuration, weights, inputs and outputs of a Keras 3 file to a .npz.

    Raises:
        UsageError: Keras 3 cannot read or run it; the message has the reason and what to do.
    """
    import keras

    custom_objects = _load_objects(objects)
    try:
        with keras.saving.custom_object_scope(custom_objects):
            model = _load_model(path, custom_objects)
            config = keras.saving.serialize_keras_object(model)
    except Exception as error:
        raise UsageError(f"Keras 3 cannot read it: {_explain(error)}") from error
    if not (isinstance(model, keras.Model) and getattr(model, "inputs", None)):
        raise UsageError("it contains no graph of layers; name a function that builds the model")
    content = {
        CONFIG: np.asarray(json.dumps(config)),
        **_weights(model),
        **_inputs_and_outputs(model, whole),
    }
    np.savez(target, **content)


def _explain(error: Exception) -> str:
    """Return the reason why Keras 3 cannot read a file, with what to do."""
    unknown = ("Could not locate class", "Unknown layer", "Could not locate function", "Unknown")
    for word in unknown:
        _, match, rest = str(error).partition(word)
        if match:
            name = rest.lstrip(" :a-z").split("'")[1] if "'" in rest else "NAME"
            return (
                f'unknown layer {name} (add it: custom_objects: ["my_layers.py:{name}"]), or '
                "name a function that builds the model"
            )
    return f"{cause_of(error)}; name a function that builds the model"


def main(path: str, objects: str, target: str, whole: str) -> None:
    def reply() -> dict[str, Any]:
        write(Path(path), json.loads(objects), Path(target), bool(whole))
        return {}

    print_json_reply(reply, f"{Path(path).name} (Keras 3): ")


if __name__ == "__main__":
    main(*sys.argv[1:])
