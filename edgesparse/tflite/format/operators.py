"""Operators of a .tflite file in the order of execution, with their weights and work."""

from __future__ import annotations

from dataclasses import dataclass

from edgesparse.tflite.format.graph import (
    Constant,
    constants,
    damaged,
    indices,
    label,
    open_model,
    operator_name,
)
from edgesparse.tflite.format.macs import operator_macs


@dataclass(frozen=True)
class OperatorInfo:
    """An operator of a file.

    Attributes:
        name: the Keras layer that it comes from.
        weights: number of its weights of two or more dimensions; `zeros` of them are zero.
        dense_bytes: size of these weights if stored dense; `stored_bytes` as stored.
        macs: multiply-accumulates of one inference; None where shapes do not determine them.
    """

    name: str
    operator: str
    weights: int
    zeros: int
    storage: str
    dense_bytes: int
    stored_bytes: int
    macs: int | None


def read_operators(content: bytes, name: str = "model.tflite") -> tuple[OperatorInfo, ...]:
    """Read the operators of a file's first subgraph.

    Raises:
        UsageError: the file is damaged.
    """
    model = open_model(content, name)
    with damaged(name):
        graph = model.subgraphs[0]
        by_operator: dict[int, list[Constant]] = {}
        for constant in constants(model, content):
            if constant.graph == 0 and constant.is_weight:
                by_operator.setdefault(constant.operator, []).append(constant)
        result = []
        for number, operator in enumerate(graph.operators or ()):
            weights = by_operator.get(number, [])
            largest = max(weights, key=lambda c: c.values.size, default=None)
            output = next(iter(indices(operator.outputs)), -1)
            written = (graph.tensors[output].name or b"") if output >= 0 else b""
            result.append(
                OperatorInfo(
                    name=largest.label if largest else label(written.decode("utf-8", "replace")),
                    operator=operator_name(model, operator),
                    weights=sum(c.values.size for c in weights),
                    zeros=sum(c.zeros for c in weights),
                    storage=largest.form if largest else "",
                    dense_bytes=sum(c.values.nbytes for c in weights),
                    stored_bytes=sum(c.stored_bytes for c in weights),
                    macs=operator_macs(model, graph, operator),
                )
            )
    return tuple(result)
