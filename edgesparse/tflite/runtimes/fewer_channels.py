"""A network with fewer channels, as channel pruning would leave it, for predictions."""

from __future__ import annotations

from dataclasses import replace

from edgesparse.delegate.cost import DEPTHWISE, FLAT, PRODUCTS, Layer
from edgesparse.spec.sparsify import AUTO_MULTIPLE, finer_multiple
from edgesparse.tflite.runtimes.delegated import Network

FEW = 4
"""Channels of inputs that are never removed, as those of an image."""


def thinned(
    network: Network,
    *,
    width: float | None = None,
    macs: float | None = None,
    multiple: int = AUTO_MULTIPLE,
) -> Network:
    """Remove the same share of channels from every layer but the inputs and the outputs.

    Args:
        width: the share of channels that stays.
        macs: the share of multiply-accumulates that stays; in place of `width`.
        multiple: widths are multiples of it, and of less in narrow layers.
    """
    if width is not None:
        return _thinned(network, width, multiple)
    low, high, budget = 0.0, 1.0, (macs or 1.0) * _macs(network)
    for _ in range(20):
        middle = (low + high) / 2
        fits = _macs(_thinned(network, middle, multiple)) <= budget
        low, high = (middle, high) if fits else (low, middle)
    return _thinned(network, low, multiple)


def _thinned(network: Network, width: float, multiple: int) -> Network:
    def fewer(channels: int) -> int:
        return channels if channels <= FEW else _fewer(channels, width, multiple)

    last = {n.operator for n in network.nodes if n.writes in network.outputs or n.op == FLAT}
    final = max(last, default=-1)
    nodes = []
    for node in network.nodes:
        if node.layer is None:
            nodes.append(node)
            continue
        outputs = node.layer.outputs
        if node.operator != final and node.op not in ("SOFTMAX", "LOGISTIC"):
            outputs = fewer(outputs)
        layer = replace(node.layer, inputs=fewer(node.layer.inputs), outputs=outputs)
        nodes.append(replace(node, layer=layer))
    shapes = {
        t: (*shape[:-1], fewer(shape[-1])) if shape and t not in network.outputs else shape
        for t, shape in network.shapes.items()
    }
    return replace(network, nodes=tuple(nodes), shapes=shapes)


def _fewer(channels: int, width: float, multiple: int) -> int:
    multiple = finer_multiple(multiple, channels)
    return max(multiple, round(channels * width / multiple) * multiple)


def _macs(network: Network) -> int:
    total = 0
    for node in network.nodes:
        if node.layer is not None and node.layer.op in (*PRODUCTS, DEPTHWISE):
            total += _products(node.layer)
    return total


def _products(layer: Layer) -> int:
    inputs = 1 if layer.op == DEPTHWISE else layer.inputs
    return inputs * layer.outputs * layer.taps * layer.pixels
