"""Files of Keras 3, rebuilt in Keras 2 by their configuration and weights.

TensorFlow saves by Keras 3 since 2.16, and its pruning toolkit takes Keras 2 only. Keras 3 reads
the file in a process of its own. Layers are made anew from their configurations and called as the
graph says; the rebuilt model must answer random inputs as Keras 3 does.
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
    first_difference,
    largest_difference,
    outputs,
    settle_normalizations,
)
from edgesparse.models.files.keras3_operations import (
    ACTIVATIONS,
    LAYER_ARGUMENTS,
    SAYS_NOTHING,
    operation,
)
from edgesparse.spec.errors import UsageError, cause_of
from edgesparse.spec.safe.temporary import temporary_folder

_OF_ITS_OWN = {
    "zero_output_for_mask": True,
    "renorm_momentum": 0.99,
    "fill_mode": "constant",
    "fill_value": 0.0,
}
"""What Keras 3 writes by itself; Keras 2 does the same."""
_WAY_OUT = (
    "name a function that builds the model with tf.keras, and give its weights as model.weights"
)
_Objects = tuple[tuple[str, Any], ...]
_Tensors = dict[str, Any]


def read(path: Path, own: Mapping[str, Any]) -> tf.keras.Model:
    """The model in a .keras or .h5 file of Keras 3, with its weights.

    Args:
        own: what the user's file defines, by name.

    Raises:
        UsageError: Keras 2 lacks what is in it, or answers differently; the message names the
            layer.
    """
    stat, objects = path.stat(), tuple(sorted(own.items()))
    stored = _reference(path, (stat.st_mtime_ns, stat.st_size, stat.st_ino), objects)
    model, tensors = _built(path, json.loads(str(stored[reference.CONFIG])), own)
    _restore(path, model, stored)
    _compare(path, own, model, tensors, stored)
    return model


@functools.lru_cache(maxsize=1)
def _reference(path: Path, stamp: tuple[int, ...], objects: _Objects) -> Mapping[str, np.ndarray]:
    """What Keras 3 reads; once for a process, whose stages all begin with the same file."""
    return _asked(path, dict(objects))


def _asked(path: Path, own: Mapping[str, Any], *, whole: bool = False) -> Mapping[str, np.ndarray]:
    with temporary_folder() as folder:
        target = folder / "reference.npz"
        reference.reference(path.resolve(), own, target, whole=whole)
        with np.load(target, allow_pickle=False) as stored:
            return dict(stored)


def _compare(
    path: Path,
    own: Mapping[str, Any],
    model: tf.keras.Model,
    tensors: _Tensors,
    stored: Mapping[str, np.ndarray],
) -> None:
    """Raise UsageError where the rebuilt model does not answer as Keras 3 does."""
    given = list(_values(stored, reference.INPUT).values())
    known, groups = _values(stored, reference.ANSWER), len(reference.SCALES)
    answers = outputs(model, model.outputs, given)
    found = {str(place): values for place, values in enumerate(answers)}
    if largest_difference(known, found, groups) <= TOLERANCE:
        return
    known = _values(_asked(path, own, whole=True), reference.ANSWER)
    known = {name: values for name, values in known.items() if name in tensors}
    inner = outputs(model, [tensors[name] for name in known], given)
    name = first_difference(known, dict(zip(known, inner, strict=True)), groups)
    where = f" from its layer {name} on" if name else ""
    raise UsageError(
        f"{path.name} is a file of Keras 3, and Keras 2 answers differently{where}; {_WAY_OUT}"
    )


def _values(stored: Mapping[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(kind): values for k, values in stored.items() if k.startswith(kind)}


def _built(
    path: Path, config: Mapping[str, Any], own: Mapping[str, Any]
) -> tuple[tf.keras.Model, _Tensors]:
    """The model, and what its layers and operations give, by name."""
    tensors: _Tensors = {}
    try:
        model = _object(config, own, tensors)
    except UsageError as error:
        raise UsageError(f"{path.name} is a file of Keras 3: {error}") from error
    except Exception as error:
        raise UsageError(
            f"{path.name} is a file of Keras 3 that Keras 2 cannot be given: {cause_of(error)}; "
            f"{_WAY_OUT}"
        ) from error
    if not isinstance(model, tf.keras.Model) or not model.built:
        raise UsageError(
            f"{path.name} is a file of Keras 3 with no graph of layers in it; name a function that "
            "builds the model"
        )
    return model, tensors


def _object(given: Mapping[str, Any], own: Mapping[str, Any], tensors: _Tensors) -> Any:
    """A serialized layer or model, made anew in Keras 2."""
    kind, config = str(given["class_name"]), dict(given["config"])
    if kind in ("Functional", "Model") and "layers" in config:
        return _functional(config, own, tensors)
    if kind == "Sequential":
        model = tf.keras.Sequential(name=config.get("name"))
        for layer in config["layers"]:
            model.add(_object(layer, own, {}))
        shape = config.get("build_input_shape")
        if shape is not None and not model.built:
            model.build(shape)
        tensors |= {layer.name: layer.get_output_at(-1) for layer in model.layers if model.inputs}
        return model
    found = own.get(kind) or getattr(tf.keras.layers, kind, None)
    if found is None:
        hint = f' (name it: custom_objects: ["my_layers.py:{kind}"])' if _is_own(given) else ""
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
    names = LAYER_ARGUMENTS.get(kind, {})
    values = {names.get(key, key): _value(value, own) for key, value in config.items()}
    for key, value in values.items():
        if key.endswith("activation") and isinstance(value, str):
            values[key] = ACTIVATIONS.get(value, value)
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
        if value not in SAYS_NOTHING and value != _OF_ITS_OWN.get(key):
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


def _functional(
    config: Mapping[str, Any], own: Mapping[str, Any], tensors: _Tensors
) -> tf.keras.Model:
    """The graph of a functional model, called layer by layer as its nodes become possible."""
    layers: dict[str, Any] = {}
    outputs: dict[tuple[str, int], Any] = {}
    waiting: list[tuple[str, int, Mapping[str, Any]]] = []
    for entry in config["layers"]:
        name = entry["name"]
        if "ops" in str(entry.get("module") or ""):
            layers[name] = operation(entry["class_name"], entry["config"])
        else:
            layers[name] = _object(entry, own, {})
        if entry["class_name"] == "InputLayer":
            outputs[name, 0] = layers[name].output
        waiting += [(name, place, node) for place, node in enumerate(entry["inbound_nodes"])]
    while waiting:
        # Called in the order of the nodes of a layer: their numbers are what others refer to.
        left = [w for w in waiting if not _called(*w, layers, outputs)]
        if len(left) == len(waiting):
            raise UsageError("its graph cannot be followed; name a function that builds the model")
        waiting = left
    tensors |= {name: t for (name, place), t in outputs.items() if not place and not _several(t)}
    inputs, results = config["input_layers"], config["output_layers"]
    return tf.keras.Model(
        _ends(inputs, outputs), _ends(results, outputs), name=config.get("name", "model")
    )


def _several(outputs: Any) -> bool:
    return isinstance(outputs, list | tuple | dict)


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
    # Keras 3 saves training=True as the default of a call's argument, and has what is asked of the
    # whole model go before it.
    if named.get("training") or not getattr(layers[name], "_expects_training_arg", False):
        named.pop("training", None)
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
        if given.get("class_name") == "__ellipsis__":
            return ...
        if given.get("class_name") in ("__tensor__", "__numpy__"):
            return tf.constant(given["config"]["value"], given["config"]["dtype"])
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


def _restore(path: Path, model: tf.keras.Model, stored: Mapping[str, Any], inner: str = "") -> None:
    """Give each layer the weights that Keras 3 has read for it."""
    for layer in model.layers:
        name = f"{inner}{layer.name}/"
        if isinstance(layer, tf.keras.Model):
            _restore(path, layer, stored, name)
            continue
        weights = _weights(layer)
        values = list(_values(stored, f"{reference.WEIGHT}{name}").values())
        shapes = [[list(w.shape) for w in some] for some in (values, weights)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"{path.name}: the weights of its layer {layer.name} ({type(layer).__name__}) are "
                f"{shapes[0]} in Keras 3 and {shapes[1]} in Keras 2; {_WAY_OUT}"
            )
        for weight, value in zip(weights, values, strict=True):
            weight.assign(value)
    settle_normalizations(model)


def _weights(layer: Any) -> list[Any]:
    """A layer's weights in Keras 3's order: its own, then those of the layers in it."""
    found = [*layer._trainable_weights, *layer._non_trainable_weights]
    for inner in layer._flatten_layers(recursive=False, include_self=False):
        found += _weights(inner)
    return list({id(weight): weight for weight in found}.values())
