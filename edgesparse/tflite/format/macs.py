"""How many multiply-accumulates one inference of a .tflite file takes, from its shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgesparse.tflite.format.graph import indices, operator_name

_KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D", "FULLY_CONNECTED")
_TRANSPOSED = ("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE")
_RECURRENT = (
    "BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN", "LSTM", "RNN",
    "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN",
)  # fmt: skip
_UNKNOWN = ("CALL", "CALL_ONCE", "CUSTOM", "IF", "SVDF", "WHILE")
"""How often, or whether, they do what they do is not in the file's shapes."""
MOST = 2**60
"""What a damaged file claims is more than any network takes."""
Shape = tuple[int, ...]


def count_macs(model: Any) -> int | None:
    """Those of convolutions, fully connected and recurrent layers and products of matrices; None
    where the file does not say how many there are, since it has loops or open sizes.

    Args:
        model: the file's ModelT.
    """
    graph, total = model.subgraphs[0], 0
    for operator in graph.operators or ():
        name = operator_name(model, operator)
        if name in _UNKNOWN:
            return None
        if name not in (*_KERNELS, *_TRANSPOSED, *_RECURRENT, "BATCH_MATMUL"):
            continue
        given = [graph.tensors[i] if i >= 0 else None for i in indices(operator.inputs)]
        output = graph.tensors[indices(operator.outputs)[0]]
        if any(_is_open(tensor) for tensor in (*given, output)):
            return None
        given = [None if tensor is None or tensor.isVariable else tensor for tensor in given]
        shapes = [_shape(tensor) for tensor in given]
        total += _macs(name, operator, shapes, _shape(output))
    return total if total <= MOST else None


def _macs(name: str, operator: Any, given: Sequence[Shape], output: Shape) -> int:
    if name in _RECURRENT:
        weights = sum(math.prod(shape) for shape in given[1:] if len(shape) == 2)
        return math.prod(given[0][:-1]) * weights
    if name == "BATCH_MATMUL":
        return math.prod(output) * given[0][-2 if operator.builtinOptions.adjX else -1]
    places = given[2] if name in _TRANSPOSED else output
    return math.prod(given[1]) * math.prod(places[:-1])


def _is_open(tensor: Any) -> bool:
    """Whether a size other than the batch's is left open."""
    return tensor is not None and any(n < 0 for n in indices(tensor.shapeSignature)[1:])


def _shape(tensor: Any) -> Shape:
    return () if tensor is None else tuple(indices(tensor.shape))
