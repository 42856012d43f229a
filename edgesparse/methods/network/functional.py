"""Conversion of any Keras model to a flat functional model, which the other modules can analyse.

Subclassed models are called on the data's shape, nested models are flattened, dynamic sizes become
the data's, and x[..., a:b] becomes x[:, :, a:b].
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
"""Upper bound of a tensor's uses: Keras pops a copy from a list for each use."""


def functional(
    model: tf.keras.Model,
    data: Mapping[str, Tensor],
    label: str,
    *,
    float32: bool = True,
    samples: Callable[[], Mapping[str, np.ndarray]] | None = None,
) -> tf.keras.Model:
    """Return the same layers, with their weights, as a flat functional model; the model itself
    where it is flat.

    Args:
        model: any Keras model.
        data: the dataset's inputs, whose sizes replace the model's dynamic ones.
        label: name of the model in messages.
        float32: convert layers that compute in 16 bits to float32, for training.
        samples: returns a few samples of each input, to compare outputs before and after.

    Raises:
        UsageError: it cannot be expressed as a graph of layers.
        EdgesparseError: the outputs of that graph differ.
    """
    mixed = float32 and _compute_in_float32(model)
    if is_flat(model, data) and not mixed:
        return model
    arguments = _symbolic_inputs(model, data)
    try:
        outputs = _called(model, arguments, {})
        flat = tf.keras.Model(arguments, outputs, name=model.name)
    except Exception as error:
        reason = cause_of(error)
        raise UsageError(
            f"the model of {label} cannot be converted to a graph of layers: {reason}; build it "
            "with tf.keras.Model(inputs, outputs), or simplify its call()"
        ) from error
    for layer in flat.layers:
        if isinstance(layer, tf.keras.Model):
            raise UsageError(f"{label}: the nested model {layer.name} cannot be flattened")
    if samples is not None:
        values = samples()
        arguments, same = arranged(model, values), arranged(flat, values)
        require_equal(f"{label}: building it again layer by layer", model, flat, arguments, same)
    return flat


def _symbolic_inputs(model: tf.keras.Model, data: Mapping[str, Tensor]) -> Any:
    """Return Keras inputs for a model's call, of the data's sizes where its own are dynamic."""
    if not _inputs(model):
        named = {
            name: tf.keras.Input(t.shape, dtype=t.dtype, name=name if len(data) > 1 else None)
            for name, t in data.items()
        }
        return named if len(named) > 1 else next(iter(named.values()))
    shapes = [t.shape for t in data.values()] if len(data) == len(model.inputs) else []
    by_name = {name: t.shape for name, t in data.items()}
    inputs = [
        tf.keras.Input(
            _closed(t.shape[1:], by_name.get(t.name) or (shapes[index] if shapes else ())),
            dtype=t.dtype,
            name=t.name,
        )
        for index, t in enumerate(model.inputs)
    ]
    return inputs[0] if len(inputs) == 1 else inputs


def arranged(model: tf.keras.Model, samples: Mapping[str, np.ndarray]) -> Any:
    """Return samples in a model's form: an array, a list or a mapping."""
    values, names = list(samples.values()), [t.name for t in _inputs(model)]
    if names and set(names) == set(samples):
        values = [samples[name] for name in names]
    if len(values) == 1:
        return values[0]
    return values if names else dict(samples)


def _compute_in_float32(model: tf.keras.Model) -> bool:
    """Set layers with mixed precision to float32; return True where there were any."""
    changed = False
    for layer in model._flatten_layers():
        policy = getattr(layer, "_dtype_policy", None)
        if policy is not None and str(policy.name).startswith("mixed"):
            layer._set_dtype_policy("float32")
            changed = True
    return changed


def is_flat(model: tf.keras.Model, data: Mapping[str, Tensor]) -> bool:
    """Return True for a functional or sequential model without nested models, whose sizes are
    static where the data's are."""
    inputs = _inputs(model)
    if not inputs or not _is_graph(model):
        return False
    shapes = [t.shape for t in data.values()]
    for tensor, shape in zip(inputs, shapes, strict=False):
        if tuple(tensor.shape[1:]) != _closed(tensor.shape[1:], shape):
            return False
    if _has_ellipsis(model):
        return False
    return not any(isinstance(layer, tf.keras.Model) for layer in model.layers)


def _has_ellipsis(model: tf.keras.Model) -> bool:
    """Return True for a model with x[..., a:b], which Keras cannot save."""
    return any(
        part is Ellipsis
        for nodes in getattr(model, "_nodes_by_depth", {}).values()
        for node in nodes
        for part in tf.nest.flatten((node.call_args, node.call_kwargs))
    )


def _without_ellipsis(tensor: Any, parts: Any) -> tuple[Any, ...]:
    """Replace `...` in indices by a `:` for each axis, in Keras' form."""
    parts = parts if isinstance(parts, tuple | list) else (parts,)
    ellipses = [index for index, part in enumerate(parts) if part is Ellipsis]
    if not ellipses:
        return tuple(parts)
    # None is a new axis.
    axes = len(tensor.shape) + 1 - sum(part is not None for part in parts)
    whole = [{"start": None, "stop": None, "step": None} for _ in range(axes)]
    return (*parts[: ellipses[0]], *whole, *parts[ellipses[0] + 1 :])


def _is_graph(model: tf.keras.Model) -> bool:
    graph = getattr(model, "_is_graph_network", False)
    return bool(graph) or isinstance(model, tf.keras.Sequential)


def _inputs(model: tf.keras.Model) -> list[Any]:
    """Return the model's input tensors; none where it has not been called yet."""
    try:
        return list(model.inputs or [])
    except (AttributeError, ValueError):
        return []


def _closed(shape: Any, sizes: Sequence[int | None]) -> tuple[int | None, ...]:
    """Return an input's shape with dynamic sizes replaced by the data's."""
    if len(sizes) != len(shape):
        return tuple(shape)
    return tuple(f if size is None else size for size, f in zip(shape, sizes, strict=True))


def _called(model: tf.keras.Model, tensors: Any, keywords: dict[str, Any]) -> Any:
    """A model's outputs for Keras tensors, as a graph of its layers. `how` are the arguments that
    it is called with besides, of which only `training` reaches the layers."""
    if getattr(model, "_is_graph_network", False) and _inputs(model):
        return through(model, tf.nest.flatten(tensors), keywords.get("training"))
    if isinstance(model, tf.keras.Sequential):
        for layer in model.layers:
            tensors = _layer(layer, (tensors,), {}, keywords.get("training"))
        return tensors
    # Its own call, on Keras tensors: whatever layers it calls become the graph.
    accepted = {k: v for k, v in keywords.items() if k in ("training", "mask") and v is not None}
    built = model.call(tensors, **accepted)
    return _taken_apart(built, tensors)


def _taken_apart(outputs: Any, inputs: Any) -> Any:
    """Flatten the models that a subclassed model's call() has called."""
    graph = tf.keras.Model(inputs, outputs)
    if not any(isinstance(layer, tf.keras.Model) for layer in graph.layers):
        return outputs
    return through(graph, tf.nest.flatten(inputs), None)


def through(model: tf.keras.Model, inputs: list[Any], training: Any) -> Any:
    """Apply a functional model's graph to other tensors."""
    tensors = {str(id(old)): [new] * _USES for old, new in zip(model.inputs, inputs, strict=True)}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            arguments, named = node.map_arguments(tensors)
            outputs = _layer(node.layer, arguments, named, training)
            for old, new in zip(
                tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True
            ):
                tensors[str(id(old))] = [new] * _USES
    outputs = [tensors[str(id(tensor))][0] for tensor in model.outputs]
    return tf.nest.pack_sequence_as(model._nested_outputs, outputs)


def _layer(layer: Any, arguments: Any, named: dict[str, Any], training: Any) -> Any:
    """Call a layer, or what is in it. A base that was called with training=False, as tutorials do
    with frozen ones, says so to each of its layers."""
    requested = named.get("training")
    training = training if requested is None else requested
    if isinstance(layer, tf.keras.Model):
        tensors = arguments[0] if len(arguments) == 1 else list(arguments)
        return _called(layer, tensors, {**named, "training": training})
    if training is not None and getattr(layer, "_expects_training_arg", False):
        named = {**named, "training": training}
    if type(layer).__name__ == "SlicingOpLambda" and len(arguments) == 2:
        arguments = (arguments[0], _without_ellipsis(*arguments))
    return layer(*arguments, **named)
