"""Operators of a .tflite file in the order of execution: their weights and work, and each as a file
of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgesparse.tflite.format.encode import serialize
from edgesparse.tflite.format.flatbuffer import (
    Constant,
    compact,
    constants,
    damaged,
    indices,
    label,
    open_model,
    operator_name,
)
from edgesparse.tflite.format.macs import operator_macs

_DECODERS = ("DENSIFY", "DEQUANTIZE")
"""Operators that can decode weights."""
_WITH_GRAPHS = ("CALL", "CALL_ONCE", "IF", "WHILE")
"""Operators that run other subgraphs."""


@dataclass(frozen=True)
class OperatorInfo:
    """An operator of a file.

    Attributes:
        name: the Keras layer that it comes from.
        weights: number of its weights of two or more dimensions; `zeros` of them are zero.
        storage: form of its largest weight; decoder where it decodes those of others; else empty.
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
        decoders = _decoders(model, graph).keys()
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
                    storage=largest.form if largest else "decoder" if output in decoders else "",
                    dense_bytes=sum(c.values.nbytes for c in weights),
                    stored_bytes=sum(c.stored_bytes for c in weights),
                    macs=operator_macs(model, graph, operator),
                )
            )
    return tuple(result)


def single_files(content: bytes, name: str = "model.tflite") -> Iterator[tuple[int, bytes]]:
    """Yield each operator's number and a file of it alone, with what decodes its weights.

    Operators with state, with other subgraphs or without an input that changes are left out, and so
    are all those of a file with weights after the flatbuffer.

    Raises:
        UsageError: the file is damaged.
    """
    model = open_model(content, name)
    if any(buffer.offset > 1 for buffer in model.buffers or ()):
        return
    for number in range(len(model.subgraphs[0].operators or ())):
        model = open_model(content, name)
        with damaged(name):
            if not _keep_only(model, number):
                continue
            compact(model)
            single = serialize(model, aligned=True)
        yield number, single


def _keep_only(model: Any, number: int) -> bool:
    """Reduce a model to one operator and what decodes its weights; False where it cannot be."""
    graph = model.subgraphs[0]
    operator = graph.operators[number]
    decoders = _decoders(model, graph)
    inputs = [tensor for tensor in indices(operator.inputs) if tensor >= 0]
    changing = [t for t in inputs if t not in decoders and not _is_constant(model, graph, t)]
    if not changing or operator_name(model, operator) in _WITH_GRAPHS:
        return False
    if any(graph.tensors[tensor].isVariable for tensor in inputs):
        return False
    kept, queue = [operator], inputs
    while queue:
        decoder = decoders.get(queue.pop())
        if decoder is not None:
            kept.insert(0, decoder)
            queue += indices(decoder.inputs)
    graph.operators = kept
    graph.inputs = list(dict.fromkeys(changing))
    graph.outputs = indices(operator.outputs)
    model.subgraphs, model.signatureDefs = [graph], []
    model.metadata, model.metadataBuffer = [], []
    return True


def _decoders(model: Any, graph: Any) -> dict[int, Any]:
    """Return the operators that decode weights, by the tensor that they write."""
    decoders: dict[int, Any] = {}
    for operator in graph.operators or ():
        inputs = indices(operator.inputs)
        if operator_name(model, operator) in _DECODERS and inputs:
            source = inputs[0]
            if source in decoders or _is_constant(model, graph, source):
                decoders[indices(operator.outputs)[0]] = operator
    return decoders


def _is_constant(model: Any, graph: Any, tensor: int) -> bool:
    data = model.buffers[graph.tensors[tensor].buffer].data
    return data is not None and len(data) > 0
