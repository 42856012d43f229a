"""Writes int8 networks with random weights and zeros in blocks, for measuring speed.

    python -m tests.tools.sparse_networks mobilenet_v1 --zeros 0.8 --block 2x4 OUT.tflite

Zeros are in 1x1 convolutions, in the 3x3 ones of ResNet, not in the first and the last layer.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.tools.int8_model import Int8Model, Pair, Result, Tensor, Window, Zeros

DENSE = Zeros()
RELU6 = Result()
LINEAR = Result(12 / 255, 0, "NONE")
SUM = Result(12 / 255, -128, "RELU")


def _conv(
    m: Int8Model,
    x: Tensor,
    out: int,
    size: int,
    stride: int,
    zeros: Zeros,
    result: Result = RELU6,
) -> Tensor:
    weights = zeros.weights(m.rng, (out, size, size, x.shape[3]))
    return m.conv(x, weights, Window(stride=(stride, stride)), result)


def _depthwise(m: Int8Model, x: Tensor, stride: int) -> Tensor:
    weights = DENSE.weights(m.rng, (1, 3, 3, x.shape[3]))
    return m.depthwise(x, weights, Window(stride=(stride, stride)))


def _finish(m: Int8Model, x: Tensor, classes: int) -> bytes:
    x = m.mean(x)
    return m.finish(m.dense(x, DENSE.weights(m.rng, (classes, x.shape[1]))))


def mobilenet_v1(zeros: Zeros, size: int = 128, seed: int = 0) -> bytes:
    """Howard et al. 2017, width 1.0."""
    m = Int8Model(np.random.default_rng(seed))
    x = _conv(m, m.input((1, size, size, 3), 2 / 255, 0), 32, 3, 2, DENSE)
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    for out, stride in [*blocks, *[(512, 1)] * 5, (1024, 2), (1024, 1)]:
        x = _conv(m, _depthwise(m, x, stride), out, 1, 1, zeros)
    return _finish(m, x, 1000)


def mobilenet_v2(zeros: Zeros, size: int = 128, seed: int = 0) -> bytes:
    """Sandler et al. 2018, width 1.0: linear bottlenecks, residuals between those of one shape."""
    m = Int8Model(np.random.default_rng(seed))
    x = _conv(m, m.input((1, size, size, 3), 2 / 255, 0), 32, 3, 2, DENSE)
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
              (6, 160, 3, 2), (6, 320, 1, 1)]  # fmt: skip
    for expansion, out, repeats, first in stages:
        for number in range(repeats):
            before, stride = x, first if number == 0 else 1
            if expansion > 1:
                x = _conv(m, x, x.shape[3] * expansion, 1, 1, zeros)
            x = _conv(m, _depthwise(m, x, stride), out, 1, 1, zeros, LINEAR)
            if x.shape == before.shape:
                x = m.add(x, before, LINEAR)
    return _finish(m, _conv(m, x, 1280, 1, 1, zeros), 1000)


def resnet8(zeros: Zeros, size: int = 32, seed: int = 0) -> bytes:
    """MLPerf Tiny's ResNet (Banbury et al. 2021): three blocks of 3x3 convolutions."""
    m = Int8Model(np.random.default_rng(seed))
    x = _conv(m, m.input((1, size, size, 3), 2 / 255, 0), 16, 3, 1, DENSE)
    for out, stride in ((16, 1), (32, 2), (64, 2)):
        y = _conv(m, _conv(m, x, out, 3, stride, zeros), out, 3, 1, zeros, LINEAR)
        x = x if stride == 1 else _conv(m, x, out, 1, stride, zeros, LINEAR)
        x = m.add(y, x, SUM)
    return _finish(m, x, 10)


def ds_cnn(zeros: Zeros, size: int = 49, seed: int = 0) -> bytes:
    """MLPerf Tiny's keyword spotting (Zhang et al. 2017), on 49 x 10 features."""
    m = Int8Model(np.random.default_rng(seed))
    x = m.input((1, size, 10, 1), 2 / 255, 0)
    x = m.conv(x, DENSE.weights(m.rng, (64, 10, 4, 1)), Window(stride=(2, 2)))
    for _ in range(4):
        x = _conv(m, _depthwise(m, x, 1), 64, 1, 1, zeros)
    return _finish(m, x, 12)


NETWORKS: dict[str, Callable[..., bytes]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "resnet8": resnet8,
    "ds_cnn": ds_cnn,
}


def _block(text: str) -> Pair:
    outputs, inputs = map(int, text.split("x"))
    return outputs, inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--zeros", type=float, default=0.8)
    parser.add_argument("--block", type=_block, default=(2, 4), help="outputs x inputs: 2x4")
    parser.add_argument("--size", type=int, help="height and width of the input")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    size = {"size": arguments.size} if arguments.size else {}
    content = NETWORKS[arguments.network](Zeros(arguments.zeros, arguments.block), **size)
    arguments.output.write_bytes(content)


if __name__ == "__main__":
    main()
