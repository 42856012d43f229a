"""Predicts which 1x1 convolutions XNNPACK runs on its sparse path, by its rules on the graph.

The sparse path (Elsen et al. 2019, arXiv 1911.09723) has activations in NCHW layout, so that a part
of the network switches as a whole: from a 3x3 stride-2 convolution of an image, over operators that
exist in that layout, to a global pooling. The rules are those of `xnn_subgraph_rewrite_for_nchw` in
XNNPACK's subgraph.c, from 2023 (tflite-runtime 2.14) to 2026; a `SparsePath` has the differences
between runtimes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgesparse.tflite.format.flatbuffer import Constant, indices
from edgesparse.tflite.runtimes.compatibility import SparsePath
from edgesparse.tflite.runtimes.xnnpack_nodes import Node, read_nodes

ENOUGH = 2 / 3
"""XNNPACK's limit: more than this share of the part's 1x1 weights must be zero."""
State = Literal["taken", "dense", "wrong"]


@dataclass(frozen=True)
class Path:
    """The path of a 1x1 convolution in XNNPACK, in a model with a sparse weight.

    taken: its zeros are skipped. dense: they are computed. wrong: the model would fail or have
    wrong outputs, since the part ends in an operator without its layout. `reason` is the condition.
    """

    state: State
    reason: str


@dataclass
class _Part:
    """A connected part of a subgraph, and its tensors."""

    nodes: list[Node]
    outside: set[int]
    """Tensors that are written or read outside of XNNPACK."""
    cut: Mapping[int, str]
    """Tensors of operators that the runtime does not delegate to XNNPACK, with descriptions."""
    spatial: Mapping[int, int]
    """Pixels of each tensor."""
    constants: Mapping[int, Constant]
    """The weight of each operator."""
    runtime: SparsePath
    share: float | None
    """Assumed sparsity, instead of that of the weights."""
    producers: dict[int, int] = field(default_factory=dict)


def sparse_paths(
    model: Any, constants: Sequence[Constant], runtime: SparsePath, share: float | None = None
) -> dict[tuple[int, int], Path]:
    """Predict the path of each 1x1 convolution, by subgraph and operator.

    Assumes that at least one weight is stored sparse, which enables the search for zeros.

    Args:
        constants: those of the model; see `graph.constants`.
        runtime: properties of the runtime's XNNPACK.
        share: assumed sparsity of every 1x1 weight; default: its own.
    """
    paths = {}
    for g, graph in enumerate(model.subgraphs):
        weights = {c.operator: c for c in constants if c.graph == g and c.slot == 1}
        nodes = read_nodes(model, graph, weights, runtime)
        excluded = [node for node in nodes if node.op in runtime.apart]
        cut = {t: node.description for node in excluded for t in (*node.inputs, node.output)}
        outside = {*indices(graph.inputs), *indices(graph.outputs), *cut}
        spatial = {t: _pixels(tensor) for t, tensor in enumerate(graph.tensors)}
        for members in _connected_parts([node for node in nodes if node not in excluded], cut):
            part = _Part(members, outside, cut, spatial, weights, runtime, share)
            for operator, path in _part_paths(part).items():
                paths[g, operator] = path
    return paths


def _connected_parts(nodes: list[Node], cut: Collection[int]) -> list[list[Node]]:
    """Return the parts of a graph that are connected without the tensors of `cut`."""
    part_of: dict[int, int] = {}
    parts: dict[int, list[Node]] = {}
    for number, node in enumerate(nodes):
        tensors = [t for t in (*node.inputs, node.output) if t not in cut]
        neighbours = sorted({part_of[t] for t in tensors if t in part_of})
        parts[number] = [*(member for number in neighbours for member in parts.pop(number)), node]
        for member in parts[number]:
            part_of.update((t, number) for t in (*member.inputs, member.output) if t not in cut)
    return [sorted(members, key=lambda node: node.operator) for members in parts.values()]


def _part_paths(part: _Part) -> dict[int, Path]:
    nodes = part.nodes
    part.producers = {node.output: n for n, node in enumerate(nodes)}
    for n, node in enumerate(nodes):
        node.leader = n
    # From the ends backwards until nothing changes, as XNNPACK clusters its nodes.
    joined = sum(_join(part, node) for node in nodes if node.end) > 0
    again = joined
    while again:
        again = sum(_join(part, n) for n in nodes if n.switches and not n.broken) > 0
    for node in nodes:
        leader = nodes[node.leader]
        leader.broken = leader.broken or node.broken
    # After clustering, which determines the members.
    _check_readers(part)
    zeros = _zero_shares(part)
    switched: set[int] = set()
    for node in nodes:
        if joined and node.switches and _whole(part, node) and zeros.get(node.leader, 0) > ENOUGH:
            switched.update(node.inputs)
    wrong = {
        node.leader: _misread_reason(part, node)
        for node in nodes
        if node.inside
        and not node.end
        and switched.intersection(node.inputs)
        and node.output not in switched
        and (part.spatial[node.output] > 1 or part.runtime.pixel_fails)
    }
    return {
        node.operator: _path(part, node, joined, zeros, switched, wrong)
        for node in nodes
        if node.pointwise
    }


def _path(
    part: _Part,
    node: Node,
    joined: bool,
    zeros: Mapping[int, float],
    switched: set[int],
    wrong: Mapping[int, str],
) -> Path:
    leader = part.nodes[node.leader]
    if node.leader in wrong:
        return Path("wrong", wrong[node.leader])
    if not node.inside:
        return Path("dense", node.description)
    if not joined:
        ends = [n.broken for n in part.nodes if n.end and n.broken]
        ends += [part.cut[n.output] for n in part.nodes if n.output in part.cut]
        return Path("dense", next(iter(ends), "no global pooling ends its part of the network"))
    if node.broken or leader.broken:
        return Path("dense", node.broken or leader.broken)
    if not switched.intersection(node.inputs):
        share = zeros.get(node.leader, 0.0)
        return Path(
            "dense",
            f"{share:.0%} zeros over all 1x1 weights of its part of the network, "
            "more than 2/3 needed",
        )
    return Path("taken", f"{zeros[node.leader]:.0%} zeros over its part of the network")


def _join(part: _Part, node: Node) -> bool:
    """Join a node to the cluster of the nodes that it reads; return whether that changed it."""
    changed = False
    for tensor in node.inputs:
        producer = part.producers.get(tensor)
        if producer is None or tensor in part.outside:
            if tensor in part.cut:
                node.broken = part.cut[tensor]
            elif producer is None:
                node.broken = f"{node.op} '{node.label}' reads the model's input, which only a 3x3 "
                node.broken += "stride-2 convolution of 3 channels can"
            else:
                node.broken = f"{node.op} '{node.label}' reads an output of the model"
            continue
        other = part.nodes[producer]
        if not (other.entry or other.inside) or other.broken:
            node.broken = other.broken or other.description
            continue
        other.end = False
        if other.leader != node.leader:
            other.leader = node.leader = max(other.leader, node.leader)
            changed = True
    return changed


def _whole(part: _Part, node: Node) -> bool:
    return not part.nodes[node.leader].broken


def _check_readers(part: _Part) -> None:
    """Break clusters whose values are read outside, in another layout."""
    members = [node for node in part.nodes if node.switches and _whole(part, node)]
    inside = {id(node) for node in members}
    for node in members:
        for other in part.nodes:
            if id(other) not in inside and set(other.inputs) & set(node.inputs):
                leader = part.nodes[node.leader]
                leader.broken = (
                    leader.broken or f"a value of its part is read outside: {other.description}"
                )


def _zero_shares(part: _Part) -> dict[int, float]:
    """Return the sparsity of the 1x1 weights of each cluster, by its leader."""
    sizes: dict[int, int] = {}
    zeros: dict[int, int] = {}
    for node in part.nodes:
        if node.pointwise and _whole(part, node):
            values = part.constants[node.operator].values
            sizes[node.leader] = sizes.get(node.leader, 0) + values.size
            count = values.size - int(np.count_nonzero(values))
            if part.share is not None:
                count = int(part.share * values.size)
            zeros[node.leader] = zeros.get(node.leader, 0) + count
    return {leader: zeros[leader] / max(1, size) for leader, size in sizes.items()}


def _misread_reason(part: _Part, node: Node) -> str:
    readers = [other for other in part.nodes if node.output in other.inputs]
    if part.spatial[node.output] == 1:
        return (
            f"its XNNPACK would fail or return wrong results: {node.op} '{node.label}' of one "
            "pixel is the last of its part"
        )
    reader = readers[0].description if readers else "the model's output"
    return f"its XNNPACK would return wrong results: {reader} after a sparse part"


def _pixels(tensor: Any) -> int:
    shape = indices(tensor.shape)
    return shape[1] * shape[2] if len(shape) == 4 else 1
