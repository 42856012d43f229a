"""Files of Keras 3, rebuilt in Keras 2 from their configuration and weights.

TensorFlow saves with Keras 3 since 2.16, but its pruning toolkit supports Keras 2 only. Keras 3
reads the file in a child process. Layers are created from their configurations and called along the
graph; the outputs of the rebuilt model on random inputs must equal Keras 3's.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.models.files import keras3_reference as reference
from edgesparse.models.files.equivalence import (
    TOLERANCE,
    finalize_normalizations,
    first_difference,
    largest_difference,
    outputs,
)
from edgesparse.models.files.keras3_operations import (
    ACTIVATIONS,
    LAYER_ARGUMENTS,
    NO_EFFECT,
    operation,
)
from edgesparse.spec.errors import UsageError, cause_of
from edgesparse.spec.safe.temporary_folders import temporary_folder

_DEFAULTS = {
    "zero_output_for_mask": True,
    "renorm_momentum": 0.99,
    "fill_mode": "constant",
    "fill_value": 0.0,
}
"""Values of arguments that Keras 3 adds and that are what Keras 2 does anyway."""
_WAY_OUT = "name a function that builds the model with tf.keras, and its weights as model.weights"
_Objects = tuple[tuple[str, Any], ...]
_Tensors = dict[str, Any]


def read(path: Path, custom_objects: Mapping[str, Any]) -> tf.keras.Model:
    """Rebuild the model in a .keras or .h5 file of Keras 3, with its weights.

    Args:
        custom_objects: layers and functions of the user's file, by name.

    Raises:
        UsageError: Keras 2 lacks a part of it, or its outputs differ; the message names the layer.
    """
    stat, objects = path.stat(), tuple(sorted(custom_objects.items()))
    stored = _cached_reference(path, (stat.st_mtime_ns, stat.st_size, stat.st_ino), objects)
    config = json.loads(str(stored[reference.CONFIG]))
    model, tensors = _rebuild(path, config, custom_objects)
    _restore(path, model, stored)
    _require_equal(path, custom_objects, model, tensors, stored)
    return model


@functools.lru_cache(maxsize=1)
def _cached_reference(
    path: Path, stamp: tuple[int, ...], objects: _Objects
) -> Mapping[str, np.ndarray]:
    """Read the reference once per process, whose stages all begin with the same file."""
    return _reference(path, dict(objects))


def _reference(
    path: Path, custom_objects: Mapping[str, Any], *, whole: bool = False
) -> Mapping[str, np.ndarray]:
    with temporary_folder() as folder:
        target = folder / "reference.npz"
        reference.write_in_child(path.resolve(), custom_objects, target, whole=whole)
        with np.load(target, allow_pickle=False) as stored:
            return dict(stored)


def _require_equal(
    path: Path,
    custom_objects: Mapping[str, Any],
    model: tf.keras.Model,
    tensors: _Tensors,
    stored: Mapping[str, np.ndarray],
) -> None:
    """Raise UsageError if outputs of the rebuilt model differ from Keras 3's."""
    samples = list(_values(stored, reference.INPUT).values())
    expected, groups = _values(stored, reference.OUTPUT), len(reference.SCALES)
    computed = outputs(model, model.outputs, samples)
    actual = {str(index): values for index, values in enumerate(computed)}
    if largest_difference(expected, actual, groups) <= TOLERANCE:
        return
    by_layer = _values(_reference(path, custom_objects, whole=True), reference.OUTPUT)
    by_layer = {name: values for name, values in by_layer.items() if name in tensors}
    inner = outputs(model, [tensors[name] for name in by_layer], samples)
    name = first_difference(by_layer, dict(zip(by_layer, inner, strict=True)), groups)
    where = f" from layer {name} on" if name else ""
    raise UsageError(f"{path.name} (Keras 3): outputs differ in Keras 2{where}; {_WAY_OUT}")


def _values(stored: Mapping[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(kind): values for k, values in stored.items() if k.startswith(kind)}


def _rebuild(
    path: Path, config: Mapping[str, Any], custom_objects: Mapping[str, Any]
) -> tuple[tf.keras.Model, _Tensors]:
    """Return the model in Keras 2, and the outputs of its layers and operations by name."""
    tensors: _Tensors = {}
    try:
        model = _deserialize(config, custom_objects, tensors)
    except UsageError as error:
        raise UsageError(f"{path.name} (Keras 3): {error}") from error
    except Exception as error:
        raise UsageError(
            f"{path.name} (Keras 3) cannot be rebuilt in Keras 2: {cause_of(error)}; {_WAY_OUT}"
        ) from error
    if not isinstance(model, tf.keras.Model) or not model.built:
        raise UsageError(
            f"{path.name} (Keras 3) contains no graph of layers; name a function that builds the "
            "model"
        )
    return model, tensors


def _deserialize(
    entry: Mapping[str, Any], custom_objects: Mapping[str, Any], tensors: _Tensors
) -> Any:
    """Create a serialized layer or model in Keras 2."""
    kind, config = str(entry["class_name"]), dict(entry["config"])
    if kind in ("Functional", "Model") and "layers" in config:
        return _functional(config, custom_objects, tensors)
    if kind == "Sequential":
        model = tf.keras.Sequential(name=config.get("name"))
        for layer in config["layers"]:
            model.add(_deserialize(layer, custom_objects, {}))
        shape = config.get("build_input_shape")
        if shape is not None and not model.built:
            model.build(shape)
        tensors |= {layer.name: layer.get_output_at(-1) for layer in model.layers if model.inputs}
        return model
    layer_class = custom_objects.get(kind) or getattr(tf.keras.layers, kind, None)
    if layer_class is None:
        hint = f' (add it: custom_objects: ["my_layers.py:{kind}"])' if _is_custom(entry) else ""
        raise UsageError(
            f"Keras 2 has no layer {kind}{hint}; name a function that builds the model"
        )
    return layer_class.from_config(_config(kind, layer_class, config, custom_objects))


def _is_custom(entry: Mapping[str, Any]) -> bool:
    return not str(entry.get("module") or "").startswith("keras")


def _config(
    kind: str, layer_class: Any, config: Mapping[str, Any], custom_objects: Mapping[str, Any]
) -> dict[str, Any]:
    """Translate a layer's configuration to Keras 2."""
    names = LAYER_ARGUMENTS.get(kind, {})
    values = {names.get(key, key): _value(value, custom_objects) for key, value in config.items()}
    for key, value in values.items():
        if key.endswith("activation") and isinstance(value, str):
            values[key] = ACTIVATIONS.get(value, value)
    if kind == "InputLayer":
        return {
            "batch_input_shape": values.pop("batch_shape"),
            "dtype": values.get("dtype"),
            "name": values.get("name"),
        }
    if layer_class in custom_objects.values():
        return values
    if kind == "MultiHeadAttention":  # Shapes are inferred from the call.
        values |= dict.fromkeys(("query_shape", "key_shape", "value_shape"))
        accepted = set(values) - {"seed", "use_gate", "sliding_window", "flash_attention"}
    else:
        accepted = _parameters(layer_class)
    for key in sorted(set(values) - accepted):
        value = values.pop(key)
        if value not in NO_EFFECT and value != _DEFAULTS.get(key):
            raise UsageError(
                f"layer {config.get('name', kind)} ({kind}) has {key}={value!r}, which Keras 2 "
                "does not support; name a function that builds the model"
            )
    return values


def _parameters(layer_class: Any) -> set[str]:
    """Return the arguments of a layer's constructor, also those through **kwargs."""
    names = {"name", "trainable", "dtype", "batch_input_shape"}
    for kind in inspect.getmro(layer_class):
        names |= set(inspect.signature(kind.__init__).parameters)  # type: ignore[misc]
    return names


def _value(value: Any, custom_objects: Mapping[str, Any]) -> Any:
    """Translate a value of a configuration: dtypes by name, layers as Keras 2's."""
    if isinstance(value, list):
        return [_value(item, custom_objects) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("class_name")
    if kind is None:
        return {key: _value(item, custom_objects) for key, item in value.items()}
    if kind in ("DTypePolicy", "Policy"):
        return value["config"]["name"]
    if kind == "function":
        return custom_objects.get(value["config"], value["config"])
    config = _value(value.get("config") or {}, custom_objects)
    layer_class = custom_objects.get(kind) or getattr(tf.keras.layers, kind, None)
    if layer_class is not None:  # A layer within a layer: a wrapper.
        inner = _config(kind, layer_class, config, custom_objects)
        return {"class_name": kind, "config": inner}
    initializer = getattr(tf.keras.initializers, kind, None)
    if initializer is not None:
        parameters = inspect.signature(initializer.__init__).parameters
        config = {key: item for key, item in config.items() if key in parameters}
    return {"class_name": kind, "config": config}


def _functional(
    config: Mapping[str, Any], custom_objects: Mapping[str, Any], tensors: _Tensors
) -> tf.keras.Model:
    """Rebuild a functional model: call each node once its inputs are computed."""
    layers: dict[str, Any] = {}
    outputs: dict[tuple[str, int], Any] = {}
    waiting: list[tuple[str, int, Mapping[str, Any]]] = []
    for entry in config["layers"]:
        name = entry["name"]
        if "ops" in str(entry.get("module") or ""):
            layers[name] = operation(entry["class_name"], entry["config"])
        else:
            layers[name] = _deserialize(entry, custom_objects, {})
        if entry["class_name"] == "InputLayer":
            outputs[name, 0] = layers[name].output
        waiting += [(name, index, node) for index, node in enumerate(entry["inbound_nodes"])]
    while waiting:
        # Nodes of a layer are called in order: other nodes refer to their indices.
        remaining = [node for node in waiting if not _try_call(*node, layers, outputs)]
        if len(remaining) == len(waiting):
            raise UsageError(
                "cannot follow the graph of layers; name a function that builds the model"
            )
        waiting = remaining
    tensors |= {name: t for (name, index), t in outputs.items() if not index and not _is_nested(t)}
    inputs, results = config["input_layers"], config["output_layers"]
    return tf.keras.Model(
        _tensors_at(inputs, outputs),
        _tensors_at(results, outputs),
        name=config.get("name", "model"),
    )


def _is_nested(outputs: Any) -> bool:
    return isinstance(outputs, list | tuple | dict)


def _try_call(
    name: str,
    index: int,
    node: Mapping[str, Any],
    layers: Mapping[str, Any],
    outputs: dict[tuple[str, int], Any],
) -> bool:
    """Call a layer for one of its nodes; False if an input is not computed yet."""
    if any(key[:2] not in outputs for key in _histories((node["args"], node["kwargs"]))):
        return False
    if index and (name, index - 1) not in outputs:
        return False
    arguments, named = (_arguments(node[part], outputs) for part in ("args", "kwargs"))
    named = {key: value for key, value in named.items() if value is not None}
    # Keras 3 saves training=True as the argument's default; the model's own argument overrides it.
    if named.get("training") or not getattr(layers[name], "_expects_training_arg", False):
        named.pop("training", None)
    outputs[name, index] = layers[name](*arguments, **named)
    return True


def _histories(value: Any) -> Iterator[tuple[str, int, int]]:
    """Yield the (layer, node, tensor) of each tensor in a serialized argument."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            layer, node, tensor = value["config"]["keras_history"]
            yield layer, node, tensor
        else:
            for item in value.values():
                yield from _histories(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _histories(item)


def _arguments(value: Any, outputs: Mapping[tuple[str, int], Any]) -> Any:
    """Deserialize the arguments of a call."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            layer, node, tensor = value["config"]["keras_history"]
            return tf.nest.flatten(outputs[layer, node])[tensor]
        if value.get("class_name") == "__tuple__":
            return tuple(_arguments(item, outputs) for item in value["items"])
        if value.get("class_name") == "__ellipsis__":
            return ...
        if value.get("class_name") in ("__tensor__", "__numpy__"):
            return tf.constant(value["config"]["value"], value["config"]["dtype"])
        if value.get("class_name") in ("__slice__", "slice"):
            bounds = value["config"]
            return slice(bounds.get("start"), bounds.get("stop"), bounds.get("step"))
        return {key: _arguments(item, outputs) for key, item in value.items()}
    if isinstance(value, list):
        return [_arguments(item, outputs) for item in value]
    return value


def _tensors_at(value: Any, outputs: Mapping[tuple[str, int], Any]) -> Any:
    """Return a model's inputs or outputs from a nest of [layer, node, tensor]."""
    if isinstance(value, dict):
        return {key: _tensors_at(item, outputs) for key, item in value.items()}
    if len(value) == 3 and isinstance(value[0], str):
        return tf.nest.flatten(outputs[value[0], value[1]])[value[2]]
    return [_tensors_at(item, outputs) for item in value]


def _restore(path: Path, model: tf.keras.Model, stored: Mapping[str, Any], inner: str = "") -> None:
    """Assign the weights that Keras 3 read to each layer."""
    for layer in model.layers:
        name = f"{inner}{layer.name}/"
        if isinstance(layer, tf.keras.Model):
            _restore(path, layer, stored, name)
            continue
        weights = _weights(layer)
        values = list(_values(stored, f"{reference.WEIGHT}{name}").values())
        shapes = [[list(w.shape) for w in group] for group in (values, weights)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"{path.name}: weights of layer {layer.name} ({type(layer).__name__}) have shapes "
                f"{shapes[0]} in Keras 3 but {shapes[1]} in Keras 2; {_WAY_OUT}"
            )
        for weight, value in zip(weights, values, strict=True):
            weight.assign(value)
    finalize_normalizations(model)


def _weights(layer: Any) -> list[Any]:
    """Return a layer's weights in Keras 3's order: its own, then those of inner layers."""
    weights = [*layer._trainable_weights, *layer._non_trainable_weights]
    for inner in layer._flatten_layers(recursive=False, include_self=False):
        weights += _weights(inner)
    return list({id(weight): weight for weight in weights}.values())
