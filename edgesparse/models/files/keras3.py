"""Files of Keras 3, rebuilt in Keras 2 by their configuration and weights.

TensorFlow saves by Keras 3 since 2.16, and its pruning toolkit takes Keras 2 only. Layers are made
anew from their configurations and called as the file's graph says; arguments that Keras 2 does not
know are left out where they say nothing.
"""

from __future__ import annotations

import inspect
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import tensorflow as tf

from edgesparse.spec.errors import UsageError, cause_of

_OPERATIONS: dict[str, Callable[..., Any]] = {
    "Abs": tf.abs, "Add": tf.add, "Concatenate": lambda xs, axis=-1: tf.concat(xs, axis),
    "Divide": tf.divide, "Exp": tf.exp, "ExpandDims": tf.expand_dims, "Gelu": tf.nn.gelu,
    "GetItem": lambda x, key: x[key], "Matmul": tf.matmul, "Max": tf.reduce_max,
    "Maximum": tf.maximum, "Mean": tf.reduce_mean, "Minimum": tf.minimum,
    "Multiply": tf.multiply, "Negative": tf.negative, "Power": tf.pow, "Relu": tf.nn.relu,
    "Relu6": tf.nn.relu6, "Sigmoid": tf.sigmoid, "Silu": tf.nn.silu, "Softmax": tf.nn.softmax,
    "Sqrt": tf.sqrt, "Square": tf.square, "Squeeze": tf.squeeze, "Subtract": tf.subtract,
    "Sum": tf.reduce_sum, "Tanh": tf.tanh, "TrueDivide": tf.divide,
    "Reshape": lambda x, newshape: tf.reshape(x, [-1, *newshape[1:]]),
    "Transpose": lambda x, axes=None: tf.transpose(x, axes),
}  # fmt: skip
"""Keras 3's operations on tensors, as TensorFlow's functions."""
_SAYS_NOTHING: tuple[Any, ...] = (None, False, [], {}, "channels_last")
_OF_ITS_OWN = {"zero_output_for_mask": True, "renorm_momentum": 0.99}
"""What Keras 3 writes by itself; Keras 2 does the same."""
_NO_WEIGHTS = ("seed_generator",)


def read(path: Path, own: Mapping[str, Any]) -> tf.keras.Model:
    """The model in a .keras or .h5 file of Keras 3, with its weights.

    Raises:
        UsageError: Keras 2 has not what is in it; the message names the layer.
    """
    import h5py

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            weights = BytesIO(archive.read("model.weights.h5"))
        model = _built(path, config, own)
        with h5py.File(weights, "r") as file:
            _restore(path, model, file)
        return model
    with h5py.File(path, "r") as file:
        model = _built(path, json.loads(file.attrs["model_config"]), own)
        _restore_by_name(path, model, file["model_weights"])
    return model


def _built(path: Path, config: Mapping[str, Any], own: Mapping[str, Any]) -> tf.keras.Model:
    try:
        model = _object(config, own)
    except UsageError as error:
        raise UsageError(f"{path.name} is a file of Keras 3: {error}") from error
    except Exception as error:
        raise UsageError(
            f"{path.name} is a file of Keras 3 that Keras 2 cannot be given: {cause_of(error)}; "
            "name a function that builds the model, and give its weights as model.weights"
        ) from error
    if not isinstance(model, tf.keras.Model) or not model.built:
        raise UsageError(
            f"{path.name} is a file of Keras 3 with no graph of layers in it; name a function that "
            "builds the model"
        )
    return model


def _object(given: Mapping[str, Any], own: Mapping[str, Any]) -> Any:
    """A serialized layer or model, made anew in Keras 2."""
    kind, config = str(given["class_name"]), dict(given["config"])
    if kind in ("Functional", "Model") and "layers" in config:
        return _functional(config, own)
    if kind == "Sequential":
        model = tf.keras.Sequential(name=config.get("name"))
        for layer in config["layers"]:
            model.add(_object(layer, own))
        shape = config.get("build_input_shape")
        if shape is not None and not model.built:
            model.build(shape)
        return model
    found = own.get(kind) or getattr(tf.keras.layers, kind, None)
    if found is None:
        hint = " (name it: custom_objects: [my_file.py:TheLayer])" if _is_own(given) else ""
        raise UsageError(
            f"Keras 2 has no layer {kind}{hint}; name a function that builds the model"
        )
    return found.from_config(_config(kind, found, config, own))


def _is_own(given: Mapping[str, Any]) -> bool:
    return not str(given.get("module") or "").startswith("keras")


def _config(
    kind: str, found: Any, config: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
    """A layer's configuration in Keras 2's words."""
    values = {key: _value(value, own) for key, value in config.items()}
    if kind == "InputLayer":
        return {
            "batch_input_shape": values.pop("batch_shape"),
            "dtype": values.get("dtype"),
            "name": values.get("name"),
        }
    if found in own.values():
        return values
    if kind == "MultiHeadAttention":  # Its shapes are found when it is called.
        values |= dict.fromkeys(("query_shape", "key_shape", "value_shape"))
        known = set(values) - {"seed", "use_gate", "sliding_window", "flash_attention"}
    else:
        known = _known(found)
    for key in sorted(set(values) - known):
        value = values.pop(key)
        if value not in _SAYS_NOTHING and value != _OF_ITS_OWN.get(key):
            raise UsageError(
                f"its layer {config.get('name', kind)} ({kind}) has {key}={value!r}, which Keras 2 "
                "has not; name a function that builds the model"
            )
    return values


def _known(found: Any) -> set[str]:
    """The arguments that a layer's constructor takes, also through **kwargs."""
    known = {"name", "trainable", "dtype", "batch_input_shape"}
    for kind in inspect.getmro(found):
        known |= set(inspect.signature(kind.__init__).parameters)  # type: ignore[misc]
    return known


def _value(value: Any, own: Mapping[str, Any]) -> Any:
    """A value of a configuration: types of numbers by their names, layers as Keras 2's."""
    if isinstance(value, list):
        return [_value(item, own) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("class_name")
    if kind is None:
        return {key: _value(item, own) for key, item in value.items()}
    if kind in ("DTypePolicy", "Policy"):
        return value["config"]["name"]
    if kind == "function":
        return own.get(value["config"], value["config"])
    config = _value(value.get("config") or {}, own)
    found = own.get(kind) or getattr(tf.keras.layers, kind, None)
    if found is not None:  # A layer within a layer, as wrappers have them.
        return {"class_name": kind, "config": _config(kind, found, config, own)}
    made = getattr(tf.keras.initializers, kind, None)
    if made is not None:
        known = inspect.signature(made.__init__).parameters
        config = {key: item for key, item in config.items() if key in known}
    return {"class_name": kind, "config": config}


def _functional(config: Mapping[str, Any], own: Mapping[str, Any]) -> tf.keras.Model:
    """The graph of a functional model, called layer by layer as its nodes become possible."""
    layers: dict[str, Any] = {}
    outputs: dict[tuple[str, int], Any] = {}
    waiting: list[tuple[str, int, Mapping[str, Any]]] = []
    for entry in config["layers"]:
        name = entry["name"]
        if "ops" in str(entry.get("module") or "") or _is_operation(entry, own):
            layers[name] = _operation(entry["class_name"])
        else:
            layers[name] = _object(entry, own)
        if entry["class_name"] == "InputLayer":
            outputs[name, 0] = layers[name].output
        waiting += [(name, place, node) for place, node in enumerate(entry["inbound_nodes"])]
    while waiting:
        # Called in the order of the nodes of a layer: their numbers are what others refer to.
        left = [w for w in waiting if not _called(*w, layers, outputs)]
        if len(left) == len(waiting):
            raise UsageError("its graph cannot be followed; name a function that builds the model")
        waiting = left
    inputs, results = config["input_layers"], config["output_layers"]
    return tf.keras.Model(
        _ends(inputs, outputs), _ends(results, outputs), name=config.get("name", "model")
    )


def _is_operation(entry: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Of an .h5 file, which does not say where a class is from."""
    kind = entry["class_name"]
    called = [set(node["kwargs"]) for node in entry["inbound_nodes"]]
    plain = set(entry.get("config", {})) <= {"name", "axis", "keepdims", "key", "newshape", "axes"}
    return kind in _OPERATIONS and plain and kind not in own and called != []


def _operation(kind: str) -> Callable[..., Any]:
    if kind not in _OPERATIONS:
        raise UsageError(
            f"its operation keras.ops {kind} has no translation; name a function that builds the "
            "model"
        )
    return _OPERATIONS[kind]


def _called(
    name: str,
    place: int,
    node: Mapping[str, Any],
    layers: Mapping[str, Any],
    outputs: dict[tuple[str, int], Any],
) -> bool:
    """Call a layer as a node says, where what it takes is there; whether it was."""
    if any(key[:2] not in outputs for key in _histories((node["args"], node["kwargs"]))):
        return False
    if place and (name, place - 1) not in outputs:
        return False
    arguments, named = (_tensors(node[part], outputs) for part in ("args", "kwargs"))
    named = {key: value for key, value in named.items() if value is not None}
    outputs[name, place] = layers[name](*arguments, **named)
    return True


def _histories(given: Any) -> Iterator[tuple[str, int, int]]:
    if isinstance(given, dict):
        if given.get("class_name") == "__keras_tensor__":
            layer, node, tensor = given["config"]["keras_history"]
            yield layer, node, tensor
        else:
            for item in given.values():
                yield from _histories(item)
    elif isinstance(given, list | tuple):
        for item in given:
            yield from _histories(item)


def _tensors(given: Any, outputs: Mapping[tuple[str, int], Any]) -> Any:
    if isinstance(given, dict):
        if given.get("class_name") == "__keras_tensor__":
            layer, node, tensor = given["config"]["keras_history"]
            return tf.nest.flatten(outputs[layer, node])[tensor]
        if given.get("class_name") == "__tuple__":
            return tuple(_tensors(item, outputs) for item in given["items"])
        if given.get("class_name") in ("__slice__", "slice"):
            place = given["config"]
            return slice(place.get("start"), place.get("stop"), place.get("step"))
        return {key: _tensors(item, outputs) for key, item in given.items()}
    if isinstance(given, list):
        return [_tensors(item, outputs) for item in given]
    return given


def _ends(given: Any, outputs: Mapping[tuple[str, int], Any]) -> Any:
    """A model's inputs or outputs: one, a list or a mapping of [layer, node, tensor]."""
    if isinstance(given, dict):
        return {key: _ends(item, outputs) for key, item in given.items()}
    if len(given) == 3 and isinstance(given[0], str):
        return tf.nest.flatten(outputs[given[0], given[1]])[given[2]]
    return [_ends(item, outputs) for item in given]


def _restore(path: Path, model: tf.keras.Model, group: Any) -> None:
    """The weights of a .keras file, whose groups are named by the attributes that hold layers."""
    layers = group.get("layers") or group.get("_layers")
    if layers is not None:
        _restore_list(path, model.layers, layers, has_inputs="input_layer" in layers)
        return
    _restore_layer(path, model, group)


def _restore_list(path: Path, layers: Any, group: Any, *, has_inputs: bool) -> None:
    """Layers in a list are counted by their kinds: dense, dense_1."""
    counts: dict[str, int] = {}
    for layer in layers:
        kind = type(layer).__name__
        if kind in ("TFOpLambda", "SlicingOpLambda") or (kind == "InputLayer" and not has_inputs):
            continue
        if isinstance(layer, tf.keras.Model) and kind not in ("Functional", "Sequential"):
            kind = "Functional"
        name = _snake(kind)
        number = counts.get(name, 0)
        counts[name] = number + 1
        key = f"{name}_{number}" if number else name
        if key in group:
            if isinstance(layer, tf.keras.Model):
                _restore(path, layer, group[key])
            else:
                _restore_layer(path, layer, group[key])
        elif layer.weights:
            raise UsageError(f"{path.name} has no weights for its layer {layer.name} ({kind})")


def _restore_layer(path: Path, layer: Any, group: Any) -> None:
    own = [*layer._trainable_weights, *layer._non_trainable_weights]
    values = group.get("vars", {})
    if len(values) < len(own):
        raise UsageError(f"{path.name} has {len(values)} weights for {layer.name}, not {len(own)}")
    for place, weight in enumerate(own):
        _assign(path, layer.name, weight, values[str(place)][()])
    for key in group:
        if key == "vars" or any(word in key for word in _NO_WEIGHTS):
            continue
        held = getattr(layer, key, None)
        held = getattr(layer, f"_{key}", None) if held is None else held
        if isinstance(held, list | tuple):
            _restore_list(path, held, group[key], has_inputs=False)
        elif isinstance(held, tf.Module):
            _restore_layer(path, held, group[key])
        elif _has_values(group[key]):
            raise UsageError(f"{path.name} has weights for {layer.name}.{key}, which is not there")


def _has_values(group: Any) -> bool:
    if not hasattr(group, "keys"):
        return True
    return any(_has_values(group[key]) for key in group)


def _restore_by_name(path: Path, model: tf.keras.Model, group: Any) -> None:
    """The weights of an .h5 file, by the names of layers and in the order of their weights."""
    for layer in model.layers:
        if not layer.weights:
            continue
        if layer.name not in group:
            raise UsageError(f"{path.name} has no weights for its layer {layer.name}")
        stored = group[layer.name]
        names = [n.decode() if isinstance(n, bytes) else n for n in stored.attrs["weight_names"]]
        names = [name for name in names if "seed_generator" not in name]
        if len(names) != len(layer.weights):
            raise UsageError(
                f"{path.name} has {len(names)} weights for {layer.name}, not {len(layer.weights)}"
            )
        for name, weight in zip(names, layer.weights, strict=True):
            _assign(path, layer.name, weight, stored[name][()])


def _assign(path: Path, layer: str, weight: Any, values: Any) -> None:
    if tuple(weight.shape) != tuple(values.shape):
        raise UsageError(
            f"{path.name}: a weight of {layer} is {list(values.shape)}, and {list(weight.shape)} "
            "in Keras 2; name a function that builds the model"
        )
    weight.assign(values)


def _snake(name: str) -> str:
    """As Keras names the groups of its files."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
