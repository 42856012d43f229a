"""Elementwise weights of user-defined layers: factors and shifts, which are not kernels.

The layer is traced, and its weights are followed to the operations that combine them with its
inputs: a weight of a matrix product or a convolution is a kernel; one of a multiplication or an
addition that keeps the data's shape is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import tensorflow as tf

_BINARY = frozenset(
    ("Add", "AddV2", "BiasAdd", "Div", "DivNoNan", "Maximum", "Minimum", "Mul", "Pow", "RealDiv",
     "Sub", "SquaredDifference")
)  # fmt: skip
_JOINS = frozenset(("ConcatV2", "Pack"))
"""Operations that concatenate, as of a class token with the data."""
_SHAPES = frozenset(("Shape", "ShapeN", "Rank", "Size"))
_OPAQUE = ("Call", "While", "If", "Case")
_traced: WeakKeyDictionary[Any, frozenset[int] | None] = WeakKeyDictionary()


def is_elementwise(layer: Any, weight: Any) -> bool:
    """Return True for a weight that is a factor or shift, not a kernel.

    Args:
        layer: layer of the model; the weight can be in a layer within it.
        weight: the variable. Where the layer cannot be traced, a single row counts as a factor for
            each channel.
    """
    if layer not in _traced:
        try:
            _traced[layer] = _elementwise(layer)
        except Exception:  # The user's code can fail in tracing.
            _traced[layer] = None
    traced = _traced[layer]
    if traced is None:
        return int(np.prod(weight.shape[:-1])) == 1
    return id(weight) in traced


def _elementwise(layer: Any) -> frozenset[int] | None:
    """Return the ids of a layer's elementwise weights; None where its graph does not show them."""
    nodes = getattr(layer, "_inbound_nodes", ())
    if not nodes or not nodes[0].keras_inputs:
        return None
    node = nodes[0]
    positions = {id(t): number for number, t in enumerate(node.keras_inputs)}

    def call(*tensors: Any) -> Any:
        args, kwargs = tf.nest.map_structure(
            lambda value: tensors[positions[id(value)]] if id(value) in positions else value,
            (node.call_args, node.call_kwargs),
        )
        return layer(*args, **kwargs)

    specs = [tf.TensorSpec(t.shape, t.dtype) for t in node.keras_inputs]
    graph = tf.function(call).get_concrete_function(*specs).graph
    if any(kind in op.type for op in graph.get_operations() for kind in _OPAQUE):
        return None  # Their bodies are not in this graph.
    data = {t.name for first in graph.inputs[: len(specs)] for t in _behind(first)}
    captured = {id(outer): inner for outer, inner in graph.captures}
    return frozenset(
        id(weight)
        for weight in layer.weights
        if id(weight.handle) in captured and _meets(captured[id(weight.handle)], data)
    )


def _behind(first: Any) -> Iterator[Any]:
    """Yield a tensor and all tensors computed from it, except from its shape only."""
    seen, waiting = set(), [first]
    while waiting:
        tensor = waiting.pop()
        if tensor.name not in seen:
            seen.add(tensor.name)
            yield tensor
            waiting += [
                t for op in tensor.consumers() if op.type not in _SHAPES for t in op.outputs
            ]


def _meets(weight: Any, data: set[str]) -> bool:
    """Return True where every operation that combines a weight with the data is elementwise."""
    met = False
    for tensor in _behind(weight):
        if tensor.name in data:
            continue
        for op in tensor.consumers():
            others = [t for t in op.inputs if t.name in data]
            if others:
                same = others[0].shape.as_list() == op.outputs[0].shape.as_list()
                if op.type not in _JOINS and not (op.type in _BINARY and same):
                    return False
                met = True
    return met
