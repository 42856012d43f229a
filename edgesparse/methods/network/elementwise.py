"""Which weights of a user's own layer meet its data element by element, as factors and shifts do.

The layer is traced, and its weights are followed to where they meet what the layer is called with:
a product of matrices or a convolution makes a kernel of them; a multiplication or an addition that
leaves the data's shape as it is does not.
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
"""A class token is put beside the data."""
_SHAPES = frozenset(("Shape", "ShapeN", "Rank", "Size"))
_OPAQUE = ("Call", "While", "If", "Case")
_traced: WeakKeyDictionary[Any, frozenset[int] | None] = WeakKeyDictionary()


def is_elementwise(layer: Any, weight: Any) -> bool:
    """Whether a weight is a factor or shift of what it meets, and no kernel.

    Args:
        layer: of the model; the weight may be in a layer within it.
        weight: its variable. Where the layer cannot be traced, a single row counts as a factor for
            each channel.
    """
    if layer not in _traced:
        try:
            _traced[layer] = _elementwise(layer)
        except Exception:  # The user's code may refuse to be traced.
            _traced[layer] = None
    found = _traced[layer]
    if found is None:
        return int(np.prod(weight.shape[:-1])) == 1
    return id(weight) in found


def _elementwise(layer: Any) -> frozenset[int] | None:
    """The ids of a layer's weights that are; None where its graph does not show it."""
    nodes = getattr(layer, "_inbound_nodes", ())
    if not nodes or not nodes[0].keras_inputs:
        return None
    node = nodes[0]
    places = {id(t): number for number, t in enumerate(node.keras_inputs)}

    def call(*tensors: Any) -> Any:
        args, kwargs = tf.nest.map_structure(
            lambda value: tensors[places[id(value)]] if id(value) in places else value,
            (node.call_args, node.call_kwargs),
        )
        return layer(*args, **kwargs)

    specs = [tf.TensorSpec(t.shape, t.dtype) for t in node.keras_inputs]
    graph = tf.function(call).get_concrete_function(*specs).graph
    if any(kind in op.type for op in graph.get_operations() for kind in _OPAQUE):
        return None  # What is in them is not in this graph.
    data = {t.name for first in graph.inputs[: len(specs)] for t in _behind(first)}
    captured = {id(outer): inner for outer, inner in graph.captures}
    return frozenset(
        id(weight)
        for weight in layer.weights
        if id(weight.handle) in captured and _meets(captured[id(weight.handle)], data)
    )


def _behind(first: Any) -> Iterator[Any]:
    """A tensor and all that are computed from it, but for those that only its shape matters to."""
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
    """Whether every operation at which a weight meets the data goes element by element."""
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
