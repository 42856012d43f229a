"""Which inputs of a model still reach its outputs, and which speak for which of them.

A path goes from an input to an output over weights that are not zero. Followed are fully connected
layers, tables of rows, and what works value by value; behind anything else every input is taken to
reach everything. How strong an input is for an output is the sum over its paths of the products of
their weights, as if every activation let them pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgesparse.tflite.format.graph import (
    constants,
    damaged,
    indices,
    open_model,
    operator_name,
)
from edgesparse.tflite.format.signature import read_signature

_ALIKE = (
    "QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "RELU", "RELU6", "LOGISTIC",
    "TANH", "SOFTMAX", "LEAKY_RELU", "ELU", "CAST",
)  # fmt: skip
"""Operators whose outputs are their first input's values, one by one."""
_PRODUCTS = ("BATCH_MATMUL", "MUL")
LARGEST = 1 << 26
"""No matrix of inputs by values is made larger."""


@dataclass(frozen=True)
class Features:
    """Of one input: `reach` bool [values], whether a path of weights leads to an output; `strength`
    float [values, outputs], None where something on the way cannot be followed."""

    name: str
    reach: np.ndarray[Any, Any]
    strength: np.ndarray[Any, Any] | None

    @property
    def followed(self) -> bool:
        return self.strength is not None


@dataclass(frozen=True)
class _Paths:
    """From an input's values to a tensor's: signed strengths, and how much there is at all."""

    source: int
    signed: np.ndarray[Any, Any]
    size: np.ndarray[Any, Any]


def features(content: bytes, name: str = "model.tflite") -> list[Features]:
    """What of each input of the first graph reaches the first output.

    Raises:
        UsageError: the file is none, or damaged.
    """
    with damaged(name):
        model = open_model(content, name)
        graph = model.subgraphs[0]
        fixed = _fixed(model, content)
        paths = _followed(model, graph, fixed)
        found = []
        known = paths.get(indices(graph.outputs)[0])
        for spec in read_signature(content, name).inputs:
            if spec.index in paths and spec.index not in _read(graph):
                continue
            own = known if known is not None and known.source == spec.index else None
            if own is not None:
                found.append(Features(spec.name, own.size.any(axis=1), own.signed))
            elif not _counts_only(model, graph, spec.index, paths):
                count = int(np.prod([max(1, size) for size in spec.shape[1:]]))
                found.append(Features(spec.name, np.ones(count, bool), None))
    return found


def strongest(
    one: Features, labels: Sequence[str], names: Sequence[str], count: int
) -> dict[str, list[tuple[str, float]]]:
    """For each output the inputs that speak for it most, against the others' mean; and, where
    there is only one output, those that speak most for it and against it.

    Args:
        labels: what outputs are called, as far as somebody knows; else their numbers.
        names: the same of the input's values.
    """
    if one.strength is None:
        return {}
    several = one.strength.shape[1] > 1
    own = one.strength - (one.strength.mean(axis=1, keepdims=True) if several else 0)
    found = {}
    for output, values in enumerate(own.T):
        order = np.argsort(-values if several else -np.abs(values), kind="stable")
        chosen = [int(i) for i in order[:count] if one.reach[i]]
        label = labels[output] if output < len(labels) else str(output)
        found[label] = [(names[i] if i < len(names) else str(i), float(values[i])) for i in chosen]
    return found


def _fixed(model: Any, content: bytes) -> dict[int, np.ndarray[Any, Any]]:
    """The constants of the first graph as real numbers, by tensor."""
    found: dict[int, np.ndarray[Any, Any]] = {}
    for constant in constants(model, content):
        if constant.graph:
            continue
        values = constant.values
        given = model.subgraphs[0].tensors[constant.tensor].quantization
        if values.dtype.kind == "i" and given is not None and given.scale is not None:
            # Of fully connected layers scales are by output, which is the first axis.
            scale = np.asarray(given.scale, np.float32)
            shape = (-1,) + (1,) * (values.ndim - 1)
            zero = constant.zero_point or 0
            values = (values.astype(np.float32) - zero) * (
                scale.reshape(shape) if len(scale) > 1 else scale[0]
            )
        found[constant.tensor] = np.asarray(values, np.float32)
    return found


def _followed(
    model: Any, graph: Any, fixed: Mapping[int, np.ndarray[Any, Any]]
) -> dict[int, _Paths]:
    paths: dict[int, _Paths] = {}
    tables: dict[int, tuple[int, np.ndarray[Any, Any]]] = {}
    plain = {index: _plain(model, graph, index) for index in range(len(graph.tensors))}
    sources = {index: index for index in indices(graph.inputs)}
    for operator in graph.operators or ():
        kind = operator_name(model, operator)
        given, (target, *_) = indices(operator.inputs), indices(operator.outputs)
        first = given[0] if given else -1
        if kind == "FULLY_CONNECTED" and given[1] in fixed:
            weight = fixed[given[1]].reshape(-1, fixed[given[1]].shape[-1]).T
            if first in sources and weight.size <= LARGEST:
                paths[target] = _Paths(sources[first], weight, np.abs(weight))
            elif first in paths and paths[first].signed.shape[1] == len(weight):
                before = paths[first]
                paths[target] = _Paths(
                    before.source, before.signed @ weight, before.size @ np.abs(weight)
                )
        elif kind == "GATHER" and len(given) > 1:
            table = fixed.get(first)
            table = plain[first] if table is None else table
            ids = given[1]
            if table is not None and ids in sources:
                tables[target] = (sources[ids], np.asarray(table))
            elif table is not None and ids in tables:  # Rows that several inputs share.
                source, places = tables[ids]
                tables[target] = (source, np.asarray(table)[places.astype(int)])
        elif kind in _PRODUCTS and any(one in tables for one in given):
            source, table = tables[next(one for one in given if one in tables)]
            if table.ndim == 2:
                paths[target] = _Paths(source, table, np.abs(table))
        elif kind == "ADD" and len([one for one in given if one in paths]) == 2:
            one, two = (paths[index] for index in given)
            if one.source == two.source and one.signed.shape == two.signed.shape:
                paths[target] = _Paths(one.source, one.signed + two.signed, one.size + two.size)
        elif kind in (*_ALIKE, "ADD", "MUL", "SUB", "SUM"):
            for index in given:
                if index in paths:
                    paths[target] = paths[index]
                if index in sources:
                    sources[target] = sources[index]
                if index in tables:
                    tables[target] = tables[index]
    return paths


def _plain(model: Any, graph: Any, index: int) -> np.ndarray[Any, Any] | None:
    """A constant of whole numbers, which is no parameter of the network."""
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
    """Whether an input says no more than how often rows of a table come."""
    for operator in graph.operators or ():
        if index in indices(operator.inputs):
            kind, target = operator_name(model, operator), indices(operator.outputs)[0]
            if kind in _PRODUCTS:
                return target in paths
            if kind in (*_ALIKE, "STRIDED_SLICE"):
                return _counts_only(model, graph, target, paths)
    return False
