"""A network with fewer channels, as channel pruning would leave it, for predictions."""

from __future__ import annotations

from dataclasses import replace

from edgesparse.delegate.cost import DEPTHWISE, FLAT, PRODUCTS, Layer
from edgesparse.tflite.runtimes.delegated import Network

MULTIPLE = 8
"""Widths after pruning, as in methods/channels.py; narrow layers have finer ones."""
FEW = 4
"""Channels of inputs that are never removed, as those of an image."""


def thinned(network: Network, *, width: float | None = None, macs: float | None = None) -> Network:
    """Remove the same share of channels from every layer but the inputs and the outputs.

    Args:
        width: the share of channels that stays.
        macs: the share of multiply-accumulates that stays; in place of `width`.
    """
    if width is not None:
        return _thinned(network, width)
    low, high, budget = 0.0, 1.0, (macs or 1.0) * _macs(network)
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if _macs(_thinned(network, middle)) <= budget else (low, middle)
    return _thinned(network, low)


def _thinned(network: Network, width: float) -> Network:
    last = {n.operator for n in network.nodes if n.writes in network.outputs or n.op == FLAT}
    final = max(last, default=-1)
    nodes = []
    for node in network.nodes:
        if node.layer is None:
            nodes.append(node)
            continue
        outputs = node.layer.outputs
        if node.operator != final and node.op not in ("SOFTMAX", "LOGISTIC"):
            outputs = _fewer(outputs, width)
        layer = replace(node.layer, inputs=_fewer(node.layer.inputs, width), outputs=outputs)
        nodes.append(replace(node, layer=layer))
    shapes = {
        t: (*shape[:-1], _fewer(shape[-1], width)) if shape and t not in network.outputs else shape
        for t, shape in network.shapes.items()
    }
    return replace(network, nodes=tuple(nodes), shapes=shapes)


def _fewer(channels: int, width: float) -> int:
    if channels <= FEW:
        return channels
    multiple = MULTIPLE if channels >= 32 else max(1, MULTIPLE // 4)
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
