"""Predicts how long a node of an int8 network takes: dense in XNNPACK, with zeros in the delegate.

Times are sums of counts, such as blocks of weights times vectors of pixels, each with a constant of
the CPU's instruction set. `tests/tools/delegate_cost.py` measures the constants; they are in
nanoseconds, or in instructions where the CPU was emulated. Only ratios between them are used.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesparse.delegate.constants import CPUS, Cpu

Pair = tuple[int, int]
ROWS = (1, 2, 4)
"""Rows of a block that the delegate can multiply, each with 4 inputs."""
INPUTS = 4
DENSE = dict.fromkeys(ROWS, 1.0)
FLAT = "FULLY_CONNECTED"
DEPTHWISE = "DEPTHWISE_CONV_2D"
PRODUCTS = ("CONV_2D", FLAT)


@dataclass(frozen=True)
class Layer:
    """A node's work for one image. Sizes are (height, width).

    `kept` is the share of weight blocks with a weight other than zero, by rows of a block.
    """

    op: str
    inputs: int
    outputs: int
    size: Pair
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    kept: Mapping[int, float] = field(default_factory=lambda: DENSE)

    @property
    def pixels(self) -> int:
        """Pixels of the output."""
        return math.prod(self.size)

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)


def cpu_of(machine: str, features: Collection[str]) -> Cpu | None:
    """Return the constants for a CPU; None where the delegate has no kernels for it.

    Args:
        machine: as platform.machine() has it.
        features: the CPU's, as Linux names them.
    """
    if machine == "aarch64":
        return CPUS["dotprod" if "asimddp" in features else "neon"]
    if machine != "x86_64" or "avx2" not in features:
        return None
    if {"avx512_vnni", "avx512f", "avx512dq", "avx512bw", "avx512vl"} <= set(features):
        return CPUS["amx" if "amx_int8" in features else "avx512vnni"]
    return CPUS["avxvnni" if "avx_vnni" in features else "avx2"]


def kept_shares(share: float, block: Pair) -> dict[int, float]:
    """Share of the delegate's blocks that keep a weight, by their rows, with zeros at random.

    Args:
        share: of the weights that is zero.
        block: (outputs, inputs) of the zeros' pattern; (1, 1) for single zeros.
    """
    outputs, inputs = block
    return {
        rows: 1 - share ** (max(1, -(-rows // outputs)) * max(1, -(-INPUTS // inputs)))
        for rows in ROWS
    }


def kept_blocks(weights: NDArray[Any]) -> dict[int, float]:
    """Share of blocks with a weight other than zero, by rows of a block: of dense weights
    [outputs, ..., inputs], in blocks of 4 inputs."""
    outputs, inputs = weights.shape[0], weights.shape[-1]
    mask = (weights != 0).reshape(outputs, -1, inputs)
    columns = -(-inputs // INPUTS)
    mask = np.pad(mask, ((0, -outputs % 4), (0, 0), (0, columns * INPUTS - inputs)))
    by_row = mask.reshape(len(mask), mask.shape[1], columns, INPUTS).any(axis=3)
    return {
        rows: float(by_row.reshape(len(mask) // rows, rows, -1).any(axis=1).mean()) for rows in ROWS
    }


def best_rows(cpu: Cpu, layer: Layer) -> int:
    """Rows of a block that the delegate chooses for a layer, by its kernels' costs."""
    return min(ROWS, key=lambda rows: _blocks(layer, rows) * cpu.block_cost[rows])


def _blocks(layer: Layer, rows: int) -> float:
    padded = -(-layer.outputs // 4) * 4
    blocks = padded // rows * layer.taps * -(-layer.inputs // INPUTS)
    return blocks * layer.kept[rows]


def dense_counts(layer: Layer, cpu: Cpu) -> dict[str, float]:
    """Count what XNNPACK does for a layer, zeros or not: matrix products in tiles."""
    elements = layer.outputs * layer.pixels
    if layer.op == DEPTHWISE:
        outputs = _up(layer.outputs, cpu.dense_tile[1])
        return {"node": 1, "tap": outputs * layer.taps * layer.pixels, "depthwise": elements}
    if layer.op not in PRODUCTS:
        return {"node": 1, "reduced" if layer.op == "MEAN" else "element": elements}
    pixels, outputs = layer.pixels, _up(layer.outputs, cpu.dense_tile[1])
    pixels = pixels if pixels == 1 else _up(pixels, cpu.dense_tile[0])
    products = outputs * _up(layer.inputs, INPUTS) * layer.taps * pixels
    return {
        "node": 1,
        "product": products,
        "output": outputs * pixels,
        "weight": layer.outputs * layer.inputs * layer.taps,
        "window": layer.pixels * layer.taps * (layer.taps > 1),
    }


def delegate_counts(layer: Layer, cpu: Cpu) -> dict[str, float]:
    """Count what the delegate does for a layer, without its borders."""
    groups = -(-layer.inputs // 4)
    if layer.op == DEPTHWISE:
        vectors = -(-layer.pixels // cpu.vector)
        return {
            "node": 1,
            "tap": groups * layer.taps * vectors,
            "strided": groups * layer.taps * vectors * (layer.stride[1] > 1),
            # Rows that are no multiple of a register are gathered pixel by pixel.
            "row": groups * layer.size[0] * (layer.size[1] % min(8, cpu.vector) > 0),
            "group": groups,
        }
    if layer.op not in PRODUCTS:
        return {"node": 1, "element": groups * 4 * layer.pixels}
    rows, pixels, counts = best_rows(cpu, layer), layer.pixels, {"node": 1.0}
    if layer.taps > 1 or layer.stride != (1, 1):
        reach = [(k - 1) * d for k, d in zip(layer.kernel, layer.dilation, strict=True)]
        pitch = layer.size[1] + reach[1] // layer.stride[1]
        height = layer.size[0] + reach[0] // layer.stride[0]
        phases = min(layer.stride[0], layer.kernel[0]) * min(layer.stride[1], layer.kernel[1])
        counts["spread"] = phases * groups * 4 * height * pitch
        if pitch != layer.size[1]:
            whole = layer.size[1] % cpu.vector == 0 and layer.size[1] // cpu.vector >= 3
            if not whole:
                pixels = (layer.size[0] - 1) * pitch + layer.size[1]
                counts["compact"] = layer.outputs * layer.pixels
    vectors = -(-pixels // cpu.vector)
    blocks = _blocks(layer, rows)
    counts[f"block{rows}"] = blocks * vectors
    counts["result"] = _up(layer.outputs, 4) * vectors
    counts["weight"] = blocks * rows * INPUTS
    return counts


def border_counts(channels: int, pixels: int) -> dict[str, float]:
    """Count what handing over a tensor costs where the delegate begins or ends."""
    return {"border": _up(channels, 4) * pixels}


def time_of(counts: Iterable[Mapping[str, float]], constants: Mapping[str, float]) -> float:
    """Sum up counts, each with its constant."""
    return sum(constants.get(name, 0.0) * n for count in counts for name, n in count.items())


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
