"""Predicts which nodes of a .tflite file edgesparse's delegate runs, and what its zeros gain.

The rules are those of delegate/src/plugin.cc; tests compare them with what the library reports.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgesparse.delegate import choice, cost
from edgesparse.delegate.constants import CPUS, Cpu
from edgesparse.delegate.cost import FLAT, PRODUCTS, Pair
from edgesparse.tflite.format.flatbuffer import Constant, damaged, indices, int8_weights, open_model
from edgesparse.tflite.format.flatbuffer import constants as constants_of
from edgesparse.tflite.runtimes.delegated_nodes import DENSIFY, Node, Reader


@dataclass(frozen=True)
class Network:
    """The nodes of a file's first subgraph, its output tensors, and the shapes of all tensors."""

    nodes: tuple[Node, ...]
    outputs: frozenset[int]
    shapes: Mapping[int, tuple[int, ...]]


def read_network(content: bytes, name: str = "model.tflite", *, as_int8: bool = False) -> Network:
    """Read the nodes of a file's first subgraph, none of them taken yet; those in the branches and
    bodies of If and While, which the delegate takes as well, are not counted.

    Args:
        as_int8: the file has floats, and stands for the int8 file of the same network.

    Raises:
        UsageError: the file is damaged.
    """
    model = open_model(content, name)
    with damaged(name):
        return network_of(model, list(constants_of(model, content)), as_int8=as_int8)


def network_of(model: Any, all_constants: Sequence[Constant], *, as_int8: bool = False) -> Network:
    """Read the nodes of an opened file, with its constants; see `read_network`."""
    reader = Reader(model, {c.tensor: c for c in all_constants if c.graph == 0}, as_int8)
    graph = reader.graph
    nodes = tuple(reader.node(n, o) for n, o in enumerate(graph.operators or ()))
    shapes = {t: tuple(indices(tensor.shape)) for t, tensor in enumerate(graph.tensors)}
    return Network(nodes, frozenset(indices(graph.outputs)), shapes)


def with_zeros(network: Network, zeros: Mapping[str, tuple[float, Pair]]) -> Network:
    """Replace the zeros of convolutions and fully connected layers by expected ones.

    Args:
        zeros: by layer the share of its weights and the pattern's block, (outputs, inputs); layers
            without an entry have none.
    """
    nodes = []
    for node in network.nodes:
        if node.op in PRODUCTS and node.layer is not None:
            share, block = zeros.get(node.label, (0.0, (1, 1)))
            layer = replace(node.layer, kept=cost.kept_shares(share, block))
            node = replace(node, layer=layer, zeros=share)
        nodes.append(node)
    return replace(network, nodes=tuple(nodes))


def claim(network: Network, cpu: Cpu, *, min_zeros: float | None = None) -> Network:
    """Decide which nodes the delegate takes on a CPU.

    Args:
        min_zeros: share of zeros from which a node counts as sparse; default: the CPU's.
    """
    vector, amx = cpu.vector, cpu.amx
    least = choice.MIN_ZEROS[amx] if min_zeros is None else min_zeros
    nodes = {
        n.operator: replace(n, taken=not n.why and _is_sparse(n, vector, least))
        for n in network.nodes
    }
    changed = True
    while changed:
        changed = False
        for node in nodes.values():
            open_question = not (node.taken or node.why or node.op == DENSIFY)
            if open_question and not _why_leave(node, nodes.values(), vector, amx):
                nodes[node.operator] = replace(node, taken=True)
                changed = True
    for node in network.nodes:
        node = nodes[node.operator]
        if node.op == DENSIFY:
            readers = [n for n in network.nodes if node.writes in (*n.reads, n.weights)]
            good = bool(readers) and all(
                nodes[n.operator].taken and n.weights == node.writes for n in readers
            )
            why = "" if good else "its weights are read by a node that is not taken"
            nodes[node.operator] = replace(node, taken=good, why=why)
        elif not (node.taken or node.why):
            why = _why_leave(node, nodes.values(), vector, amx)
            nodes[node.operator] = replace(node, why=why)
    return replace(network, nodes=tuple(nodes[n.operator] for n in network.nodes))


def _is_sparse(node: Node, vector: int, least: float) -> bool:
    """Return whether the zeros are enough: more of them where pixels fill no half of a vector."""
    if node.op not in PRODUCTS or node.layer is None:
        return False
    filled = min(1.0, _image_pixels(node) / (vector / 2))
    return node.zeros >= least and 1 - node.zeros <= filled


def _image_pixels(node: Node) -> int:
    assert node.layer is not None
    return node.layer.pixels // node.images


def _why_leave(node: Node, nodes: Iterable[Node], vector: int, amx: bool) -> str:
    """Why a node that could be taken is better left, with those that are taken so far."""
    taken = [n for n in nodes if n.taken and n.op != DENSIFY]
    before = any(n.writes in node.reads for n in taken)
    after = any(node.writes in n.reads for n in taken)
    product = node.op in PRODUCTS
    if not before and not after:
        return (
            "too few zeros, and not next to a taken node" if product else "not next to a taken node"
        )
    if not product or (before and after):
        return ""
    if node.op == FLAT:
        return "too few zeros at the end of a chain"
    if _image_pixels(node) * 2 < vector:
        return "too few pixels for its zeros"
    return "dense products are faster with AMX" if amx else ""


@dataclass(frozen=True)
class Times:
    """Predicted times of a network's nodes: dense in XNNPACK, and with the delegate; in the unit of
    the CPU's constants. `calls` are of an inference without its nodes, `borders` the delegate's."""

    dense: Mapping[int, float]
    delegate: Mapping[int, float]
    borders: float
    calls: tuple[float, float]

    @property
    def total_dense(self) -> float:
        return sum(self.dense.values()) + self.calls[0]

    @property
    def total(self) -> float:
        """The time with the delegate."""
        return sum(self.delegate.values()) + self.borders + self.calls[1]

    @property
    def ratio(self) -> float:
        """The factor by which the network is faster with the delegate."""
        return self.total_dense / self.total


def times(network: Network, cpu: Cpu, runtime: str = "ai-edge-litert") -> Times:
    """Predict the times of a network whose nodes `claim` has decided on."""
    constants, dense, mixed = cpu.dense_in(runtime), {}, {}
    for node in network.nodes:
        if node.layer is None or node.op == DENSIFY:
            continue
        number = node.operator
        dense[number] = cost.time_of([cost.dense_counts(node.layer, cpu)], constants)
        mixed[number] = dense[number]
        if node.taken:
            mixed[number] = cost.time_of([cost.delegate_counts(node.layer, cpu)], cpu.delegate)
    borders = cost.time_of(border_counts(network), cpu.delegate)
    ours = any(node.taken for node in network.nodes)
    call = constants["call"]
    return Times(dense, mixed, borders, (call, cpu.delegate["call"] if ours else call))


def border_counts(network: Network) -> list[dict[str, float]]:
    """Count what enters and leaves the delegate's nodes."""
    inside = [n for n in network.nodes if n.taken and n.op != DENSIFY]
    written = {n.writes for n in inside}
    read_outside = {t for n in network.nodes if not n.taken for t in n.reads} | network.outputs
    tensors = {t for n in inside for t in n.reads if t not in written} | (written & read_outside)
    counts = []
    for tensor in sorted(tensors):
        shape = network.shapes[tensor]
        channels = shape[-1] if shape else 1
        counts.append(cost.border_counts(channels, math.prod(shape[:-1])))
    return counts


GAIN_FROM = 1.05
"""Smallest predicted ratio that is called a speed-up."""


@dataclass(frozen=True)
class LayerGain:
    """A convolution or fully connected layer: how much faster it is than dense int8.

    Attributes:
        why: why the delegate leaves it to the runtime.
        share: of the dense network's time.
    """

    name: str
    zeros: float
    ratio: float
    share: float
    why: str = ""
    operator: int = 0


@dataclass(frozen=True)
class Gain:
    """Predicted times of a network with its zeros and without them, in the unit of the CPU's
    constants."""

    time: float
    dense: float
    layers: tuple[LayerGain, ...] = ()

    @property
    def ratio(self) -> float:
        """The factor by which it is faster by its zeros."""
        return self.dense / self.time

    @property
    def paying(self) -> tuple[LayerGain, ...]:
        """The layers with zeros that are faster for them."""
        return tuple(
            layer
            for layer in self.layers
            if layer.zeros and not layer.why and layer.ratio >= GAIN_FROM
        )


@dataclass(frozen=True)
class DelegateChoice:
    """Decision about a file: whether edgesparse's delegate is to run it.

    Attributes:
        is_tried: the device runs it with the delegate, to see whether the outputs are right.
        is_timed: only a measurement can tell whether it is faster then.
        ratio: the factor by which it is predicted to be faster; None without a prediction.
        why: why XNNPACK is expected to be faster, where it has enough zeros.
    """

    is_tried: bool
    is_timed: bool = False
    ratio: float | None = None
    why: str = ""


def choose_delegate(content: bytes, offer: Mapping[str, Any], runtime: str) -> DelegateChoice:
    """Return whether a file is to be run by the delegate that a device offers: by its zeros, see
    delegate.choice, and where enough of them lie in a layer by its predicted speed on the offer's
    `cpu`. Without the offer's `min_zeros` every file with int8 weights is tried.

    Raises:
        UsageError: the file is damaged.
    """
    weights = int8_weights(content)
    enough = choice.is_tried(offer, weights)
    if "min_zeros" not in offer or not any(choice.is_tried(offer, [w]) for w in weights):
        return DelegateChoice(enough)
    cpu = CPUS.get(offer.get("cpu", ""))
    if cpu is None:
        return DelegateChoice(enough, is_timed=enough)
    network = claim(read_network(content), cpu)
    if not any(node.taken for node in network.nodes):
        return DelegateChoice(enough)  # The library says why.
    ratio = times(network, cpu, runtime).ratio
    low, high = offer.get("timed_between", choice.TIMED_BETWEEN)
    why = f"it is expected to be {ratio:.2f}x as fast with delegate edgesparse"
    return DelegateChoice(ratio >= low, low <= ratio < high, ratio, why if ratio < 1 else "")


def is_faster(rounds: Mapping[str, Sequence[float]], predicted: float | None) -> bool:
    """Return whether edgesparse's delegate is faster in each of the paired rounds; where they
    differ, or nothing was timed, whether it is predicted to be."""
    pairs = zip(rounds.get("xnnpack", ()), rounds.get("edgesparse", ()), strict=True)
    faster = {plain > delegated for plain, delegated in pairs}
    return faster.pop() if len(faster) == 1 else (predicted or 1.0) >= 1.0


def layer_gains(network: Network, cpu: Cpu, runtime: str) -> Gain:
    """Predict what the zeros of a network gain on a CPU, layer by layer."""
    network = claim(network, cpu)
    predicted = times(network, cpu, runtime)
    layers = []
    for node in network.nodes:
        if node.op in PRODUCTS and node.operator in predicted.dense:
            dense = predicted.dense[node.operator]
            ratio = dense / max(1e-9, predicted.delegate[node.operator])
            share = dense / predicted.total_dense
            layers.append(LayerGain(node.label, node.zeros, ratio, share, node.why, node.operator))
    return Gain(predicted.total, predicted.total_dense, tuple(layers))
