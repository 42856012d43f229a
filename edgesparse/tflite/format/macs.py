"""Multiply-accumulates of an inference of a .tflite file, from its shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgesparse.tflite.format.flatbuffer import indices, operator_name

_KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D", "FULLY_CONNECTED")
_TRANSPOSED = ("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE")
_RECURRENT = (
    "BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN", "LSTM", "RNN",
    "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN",
)  # fmt: skip
_UNKNOWN = ("CALL", "CALL_ONCE", "CUSTOM", "IF", "SVDF", "WHILE")
"""Operators whose MACs do not follow from the file's shapes."""
MOST = 2**60
"""More than any network has; a damaged file can declare more."""
Shape = tuple[int, ...]


def count_macs(model: Any) -> int | None:
    """Count the MACs of convolutions, fully connected and recurrent layers and matrix products.

    Args:
        model: the file's ModelT.

    Returns:
        The count; None for files with loops, custom operators or dynamic shapes.
    """
    graph = model.subgraphs[0]
    total = 0
    for operator in graph.operators or ():
        count = operator_macs(model, graph, operator)
        if count is None:
            return None
        total += count
    return total if total <= MOST else None


def operator_macs(model: Any, graph: Any, operator: Any) -> int | None:
    """Count the MACs of one operator: 0 where it has none; None where its shapes are dynamic, do
    not determine them, or are damaged."""
    name = operator_name(model, operator)
    if name in _UNKNOWN:
        return None
    if name not in (*_KERNELS, *_TRANSPOSED, *_RECURRENT, "BATCH_MATMUL"):
        return 0
    inputs = [graph.tensors[i] if i >= 0 else None for i in indices(operator.inputs)]
    output = graph.tensors[indices(operator.outputs)[0]]
    if any(_is_dynamic(tensor) for tensor in (*inputs, output)):
        return None
    inputs = [None if tensor is None or tensor.isVariable else tensor for tensor in inputs]
    shapes = [_shape(tensor) for tensor in inputs]
    if name == "BATCH_MATMUL" and len(shapes[0]) < 2:
        return None  # Its rank is dynamic.
    count = _macs(name, operator, shapes, _shape(output))
    return count if 0 <= count <= MOST else None


def _macs(name: str, operator: Any, shapes: Sequence[Shape], output: Shape) -> int:
    if name in _RECURRENT:
        weights = sum(math.prod(shape) for shape in shapes[1:] if len(shape) == 2)
        return math.prod(shapes[0][:-1]) * weights
    if name == "BATCH_MATMUL":
        return math.prod(output) * shapes[0][-2 if operator.builtinOptions.adjX else -1]
    positions = shapes[2] if name in _TRANSPOSED else output
    return math.prod(shapes[1]) * math.prod(positions[:-1])


def _is_dynamic(tensor: Any) -> bool:
    """Return whether a size other than the batch's is dynamic."""
    return tensor is not None and any(n < 0 for n in indices(tensor.shapeSignature)[1:])


def _shape(tensor: Any) -> Shape:
    return () if tensor is None else tuple(indices(tensor.shape))
