"""Any Keras model as one flat functional model: what everything else here can look into.

Subclassed models are called on the data's shape, models within models are taken apart, open sizes
become the data's, and x[..., a:b] is x[:, :, a:b].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Tensor
from edgesparse.models.files.equivalence import require_equal
from edgesparse.spec.errors import UsageError, cause_of

_USES = 1000
"""More than any tensor is used: Keras takes one copy off a list for each use."""


def functional(
    model: tf.keras.Model,
    data: Mapping[str, Tensor],
    label: str,
    *,
    float32: bool = True,
    samples: Callable[[], Mapping[str, np.ndarray]] | None = None,
) -> tf.keras.Model:
    """The same layers, with their weights, as a flat functional model; the model itself where it
    is one.

    Args:
        data: the dataset's inputs, whose sizes stand for those that the model leaves open.
        label: what messages call the model.
        float32: also where layers compute in 16 bits, for training.
        samples: gives a few of each input of the data, for answers before and after.

    Raises:
        UsageError: it is no graph of layers, whatever it is called with.
        EdgesparseError: as such a graph it answers differently.
    """
    mixed = float32 and _compute_in_float32(model)
    if is_flat(model, data) and not mixed:
        return model
    if _inputs(model):
        tensors = list(data.values())
        shapes = [t.shape for t in tensors] if len(tensors) == len(model.inputs) else []
        by_name = {name: t.shape for name, t in data.items()}
        inputs = [
            tf.keras.Input(
                _closed(t.shape[1:], by_name.get(t.name) or (shapes[place] if shapes else ())),
                dtype=t.dtype,
                name=t.name,
            )
            for place, t in enumerate(model.inputs)
        ]
        given: Any = inputs[0] if len(inputs) == 1 else inputs
    else:
        named = {
            name: tf.keras.Input(t.shape, dtype=t.dtype, name=name if len(data) > 1 else None)
            for name, t in data.items()
        }
        given = named if len(named) > 1 else next(iter(named.values()))
    try:
        outputs = _called(model, given, {})
        flat = tf.keras.Model(given, outputs, name=model.name)
    except Exception as error:
        reason = cause_of(error)
        raise UsageError(
            f"{label} gives a model that is no graph of layers, and cannot be made one: {reason}; "
            "build it with tf.keras.Model(inputs, outputs), or make its call() plain"
        ) from error
    for layer in flat.layers:
        if isinstance(layer, tf.keras.Model):
            raise UsageError(f"{label}: the model {layer.name} in it cannot be taken apart")
    if samples is not None:
        values = samples()
        given, same = arranged(model, values), arranged(flat, values)
        require_equal(f"{label}: building it again layer by layer", model, flat, given, same)
    return flat


def arranged(model: tf.keras.Model, samples: Mapping[str, np.ndarray]) -> Any:
    """Samples of the data's inputs as a model takes them: one, a list or a mapping."""
    values, names = list(samples.values()), [t.name for t in _inputs(model)]
    if names and set(names) == set(samples):
        values = [samples[name] for name in names]
    if len(values) == 1:
        return values[0]
    return values if names else dict(samples)


def _compute_in_float32(model: tf.keras.Model) -> bool:
    """Let layers that compute in 16 bits, as mixed precision has them, compute in 32; whether there
    were any."""
    found = False
    for layer in model._flatten_layers():
        policy = getattr(layer, "_dtype_policy", None)
        if policy is not None and str(policy.name).startswith("mixed"):
            layer._set_dtype_policy("float32")
            found = True
    return found


def is_flat(model: tf.keras.Model, data: Mapping[str, Tensor]) -> bool:
    """Whether it is a functional or sequential model without models in it, and its sizes are closed
    as far as the data's are."""
    inputs = _inputs(model)
    if not inputs or not _is_graph(model):
        return False
    given = [t.shape for t in data.values()]
    for tensor, known in zip(inputs, given, strict=False):
        if tuple(tensor.shape[1:]) != _closed(tensor.shape[1:], known):
            return False
    if _has_ellipsis(model):
        return False
    return not any(isinstance(layer, tf.keras.Model) for layer in model.layers)


def _has_ellipsis(model: tf.keras.Model) -> bool:
    """Whether it has x[..., a:b], which Keras cannot save."""
    return any(
        part is Ellipsis
        for nodes in getattr(model, "_nodes_by_depth", {}).values()
        for node in nodes
        for part in tf.nest.flatten((node.call_args, node.call_kwargs))
    )


def _without_ellipsis(tensor: Any, parts: Any) -> tuple[Any, ...]:
    """Indices with a `:` for each axis that `...` stands for, as Keras keeps them."""
    parts = parts if isinstance(parts, tuple | list) else (parts,)
    places = [place for place, part in enumerate(parts) if part is Ellipsis]
    if not places:
        return tuple(parts)
    # None is a new axis.
    axes = len(tensor.shape) + 1 - sum(part is not None for part in parts)
    whole = [{"start": None, "stop": None, "step": None} for _ in range(axes)]
    return (*parts[: places[0]], *whole, *parts[places[0] + 1 :])


def _is_graph(model: tf.keras.Model) -> bool:
    graph = getattr(model, "_is_graph_network", False)
    return bool(graph) or isinstance(model, tf.keras.Sequential)


def _inputs(model: tf.keras.Model) -> list[Any]:
    """The model's input tensors; nothing where it has not been called yet."""
    try:
        return list(model.inputs or [])
    except (AttributeError, ValueError):
        return []


def _closed(shape: Any, found: Sequence[int | None]) -> tuple[int | None, ...]:
    """An input's shape with the data's sizes where it has none."""
    if len(found) != len(shape):
        return tuple(shape)
    return tuple(f if size is None else size for size, f in zip(shape, found, strict=True))


def _called(model: tf.keras.Model, given: Any, how: dict[str, Any]) -> Any:
    """A model's outputs for Keras tensors, as a graph of its layers. `how` are the arguments that
    it is called with besides, of which only `training` reaches the layers."""
    if getattr(model, "_is_graph_network", False) and _inputs(model):
        return through(model, tf.nest.flatten(given), how.get("training"))
    if isinstance(model, tf.keras.Sequential):
        for layer in model.layers:
            given = _layer(layer, (given,), {}, how.get("training"))
        return given
    # Its own call, on Keras tensors: whatever layers it calls become the graph.
    accepted = {k: v for k, v in how.items() if k in ("training", "mask") and v is not None}
    built = model.call(given, **accepted)
    return _taken_apart(built, given)


def _taken_apart(outputs: Any, given: Any) -> Any:
    """The models that a subclassed model's own call has called, taken apart in turn."""
    graph = tf.keras.Model(given, outputs)
    if not any(isinstance(layer, tf.keras.Model) for layer in graph.layers):
        return outputs
    return through(graph, tf.nest.flatten(given), None)


def through(model: tf.keras.Model, given: list[Any], training: Any) -> Any:
    """Follow a functional model's graph with other tensors."""
    known = {str(id(old)): [new] * _USES for old, new in zip(model.inputs, given, strict=True)}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            arguments, named = node.map_arguments(known)
            outputs = _layer(node.layer, arguments, named, training)
            for old, new in zip(
                tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True
            ):
                known[str(id(old))] = [new] * _USES
    found = [known[str(id(tensor))][0] for tensor in model.outputs]
    return tf.nest.pack_sequence_as(model._nested_outputs, found)


def _layer(layer: Any, arguments: Any, named: dict[str, Any], training: Any) -> Any:
    """Call a layer, or what is in it. A base that was called with training=False, as tutorials do
    with frozen ones, says so to each of its layers."""
    own = named.get("training")
    training = training if own is None else own
    if isinstance(layer, tf.keras.Model):
        given = arguments[0] if len(arguments) == 1 else list(arguments)
        return _called(layer, given, {**named, "training": training})
    if training is not None and getattr(layer, "_expects_training_arg", False):
        named = {**named, "training": training}
    if type(layer).__name__ == "SlicingOpLambda" and len(arguments) == 2:
        arguments = (arguments[0], _without_ellipsis(*arguments))
    return layer(*arguments, **named)
