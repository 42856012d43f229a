"""Input attribution: which inputs of a sparse model still reach its outputs, and how strongly.

A path goes from an input to an output over weights that are not zero. Paths are followed through
fully connected layers, embedding tables and element-wise operators; behind any other operator every
input counts as connected. The strength of an input for an output is the sum over its paths of the
products of their weights, as if every activation were linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgesparse.tflite.format.flatbuffer import (
    constants,
    damaged,
    indices,
    open_model,
    operator_name,
)
from edgesparse.tflite.format.signature import read_signature

_ELEMENTWISE = (
    "QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "RELU", "RELU6", "LOGISTIC",
    "TANH", "SOFTMAX", "LEAKY_RELU", "ELU", "CAST",
)  # fmt: skip
"""Operators whose outputs are their first input's values, one by one."""
_PRODUCTS = ("BATCH_MATMUL", "MUL")
LARGEST = 1 << 26
"""Elements of the largest matrix of inputs by outputs: 256 MB of floats."""


@dataclass(frozen=True)
class Features:
    """The attribution of one input: `reach` bool [values], true where a path leads to an output;
    `strength` float [values, outputs], None where an operator cannot be followed."""

    name: str
    reach: np.ndarray[Any, Any]
    strength: np.ndarray[Any, Any] | None

    @property
    def followed(self) -> bool:
        return self.strength is not None


@dataclass(frozen=True)
class _Paths:
    """Paths from an input's values to a tensor's: sums of signed and of absolute weights."""

    source: int
    signed: np.ndarray[Any, Any]
    size: np.ndarray[Any, Any]


def features(content: bytes, name: str = "model.tflite") -> list[Features]:
    """Attribute the first output to each input of the first graph.

    Raises:
        UsageError: the content is not a .tflite file, or it is damaged.
    """
    with damaged(name):
        model = open_model(content, name)
        graph = model.subgraphs[0]
        weights = _weights(model, content)
        paths = _follow(model, graph, weights)
        attributed = []
        to_output = paths.get(indices(graph.outputs)[0])
        for spec in read_signature(content, name).inputs:
            if spec.index in paths and spec.index not in _read(graph):
                continue
            if to_output is not None and to_output.source == spec.index:
                reach = to_output.size.any(axis=1)
                attributed.append(Features(spec.name, reach, to_output.signed))
            elif not _counts_only(model, graph, spec.index, paths):
                count = int(np.prod([max(1, size) for size in spec.shape[1:]]))
                attributed.append(Features(spec.name, np.ones(count, bool), None))
    return attributed


def strongest(
    features: Features, labels: Sequence[str], names: Sequence[str], count: int
) -> dict[str, list[tuple[str, float]]]:
    """List the `count` strongest inputs of each output, relative to the mean over outputs; of a
    single output, those with the largest weight of either sign.

    Args:
        labels: names of the outputs; those that are missing are numbered.
        names: names of the input's values, the same way.
    """
    if features.strength is None:
        return {}
    several = features.strength.shape[1] > 1
    mean = features.strength.mean(axis=1, keepdims=True) if several else 0
    by_output = {}
    for output, values in enumerate((features.strength - mean).T):
        order = np.argsort(-values if several else -np.abs(values), kind="stable")
        chosen = [int(i) for i in order[:count] if features.reach[i]]
        label = labels[output] if output < len(labels) else str(output)
        by_output[label] = [
            (names[i] if i < len(names) else str(i), float(values[i])) for i in chosen
        ]
    return by_output


def _weights(model: Any, content: bytes) -> dict[int, np.ndarray[Any, Any]]:
    """Dequantize the constants of the first graph; by tensor."""
    weights: dict[int, np.ndarray[Any, Any]] = {}
    for constant in constants(model, content):
        if constant.graph:
            continue
        values = constant.values
        quantization = model.subgraphs[0].tensors[constant.tensor].quantization
        is_integer = values.dtype.kind == "i" and quantization is not None
        if is_integer and quantization.scale is not None:
            # Fully connected layers have a scale for each output, which is the first axis.
            scale = np.asarray(quantization.scale, np.float32)
            shape = (-1,) + (1,) * (values.ndim - 1)
            zero = constant.zero_point or 0
            values = (values.astype(np.float32) - zero) * (
                scale.reshape(shape) if len(scale) > 1 else scale[0]
            )
        weights[constant.tensor] = np.asarray(values, np.float32)
    return weights


def _follow(
    model: Any, graph: Any, weights: Mapping[int, np.ndarray[Any, Any]]
) -> dict[int, _Paths]:
    paths: dict[int, _Paths] = {}
    tables: dict[int, tuple[int, np.ndarray[Any, Any]]] = {}
    integers = {index: _integers(model, graph, index) for index in range(len(graph.tensors))}
    sources = {index: index for index in indices(graph.inputs)}
    for operator in graph.operators or ():
        kind = operator_name(model, operator)
        inputs, (target, *_) = indices(operator.inputs), indices(operator.outputs)
        first = inputs[0] if inputs else -1
        if kind == "FULLY_CONNECTED" and inputs[1] in weights:
            weight = weights[inputs[1]].reshape(-1, weights[inputs[1]].shape[-1]).T
            if first in sources and weight.size <= LARGEST:
                paths[target] = _Paths(sources[first], weight, np.abs(weight))
            elif first in paths and paths[first].signed.shape[1] == len(weight):
                before = paths[first]
                paths[target] = _Paths(
                    before.source, before.signed @ weight, before.size @ np.abs(weight)
                )
        elif kind == "GATHER" and len(inputs) > 1:
            table = weights.get(first)
            table = integers[first] if table is None else table
            ids = inputs[1]
            if table is not None and ids in sources:
                tables[target] = (sources[ids], np.asarray(table))
            elif table is not None and ids in tables:  # Rows that several inputs share.
                source, rows = tables[ids]
                tables[target] = (source, np.asarray(table)[rows.astype(int)])
        elif kind in _PRODUCTS and any(index in tables for index in inputs):
            source, table = tables[next(index for index in inputs if index in tables)]
            if table.ndim == 2:
                paths[target] = _Paths(source, table, np.abs(table))
        elif kind == "ADD" and len([index for index in inputs if index in paths]) == 2:
            left, right = (paths[index] for index in inputs)
            if left.source == right.source and left.signed.shape == right.signed.shape:
                paths[target] = _Paths(
                    left.source, left.signed + right.signed, left.size + right.size
                )
        elif kind in (*_ELEMENTWISE, "ADD", "MUL", "SUB", "SUM"):
            for index in inputs:
                if index in paths:
                    paths[target] = paths[index]
                if index in sources:
                    sources[target] = sources[index]
                if index in tables:
                    tables[target] = tables[index]
    return paths


def _integers(model: Any, graph: Any, index: int) -> np.ndarray[Any, Any] | None:
    """Read a constant of int32, such as the indices of rows; None for any other tensor."""
    tensor = graph.tensors[index]
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data) or tensor.type != 2:  # int32
        return None
    values = np.frombuffer(memoryview(data), np.int32)
    shape = tuple(indices(tensor.shape))
    return values.reshape(shape) if len(values) == int(np.prod(shape)) else None


def _read(graph: Any) -> set[int]:
    return {index for operator in graph.operators or () for index in indices(operator.inputs)}


def _counts_only(model: Any, graph: Any, index: int, paths: Mapping[int, _Paths]) -> bool:
    """Return True where an input does nothing but weigh rows of a table."""
    for operator in graph.operators or ():
        if index in indices(operator.inputs):
            kind, target = operator_name(model, operator), indices(operator.outputs)[0]
            if kind in _PRODUCTS:
                return target in paths
            if kind in (*_ELEMENTWISE, "STRIDED_SLICE"):
                return _counts_only(model, graph, target, paths)
    return False
