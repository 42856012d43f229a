"""Random int8 nodes and small chains of them: what the delegate is compared with XNNPACK on.

Shapes other than powers of two, scales that make exact ties, zero points at both ends, weights at
their limits, biases that are missing or huge, zeros in blocks or anywhere or in whole rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.tools.int8_model import Array, Int8Model, Result, Tensor, Window, Zeros

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 20, 24, 30, 32, 36, 48, 64, 68)
ACTIVATIONS = ("NONE", "NONE", "RELU", "RELU6", "RELU_N1_TO_1")
ZERO_POINTS = (-128, 127, 0, -1, 1, -127, 126)
BLOCKS = ((1, 1), (1, 4), (2, 4), (4, 4), (4, 1), (1, 16))
MAX_PRODUCTS = 3_000_000


@dataclass(frozen=True)
class Case:
    """A file, what is in it, and inputs for it, each int8 of the input's shape."""

    kind: str
    content: bytes
    parameters: tuple[str, ...]
    inputs: tuple[Array, ...]

    def __str__(self) -> str:
        return "\n  ".join((self.kind, *self.parameters))


@dataclass
class _Chance:
    """Choices of one case, noted as they are made."""

    rng: np.random.Generator
    noted: list[str] = field(default_factory=list)
    ties: bool = False

    def of(self, choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def maybe(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def size(self, most: int) -> int:
        return int(self.rng.integers(1, most + 1))

    def note(self, name: str, **values: Any) -> None:
        self.noted.append(f"{name} {json.dumps(values, default=str)}")

    def zero_point(self) -> int:
        return self.of(ZERO_POINTS) if self.maybe(0.6) else int(self.rng.integers(-128, 128))

    def scale(self) -> float:
        """A power of two where ties are wanted: then accumulators times scales end in .5."""
        value = float(np.exp(self.rng.uniform(np.log(1e-3), np.log(0.5))))
        return 2.0 ** round(np.log2(value)) if self.ties else value

    def result(self) -> Result:
        return Result(self.scale(), self.zero_point(), self.of(ACTIVATIONS))

    def zeros(self) -> Zeros:
        return Zeros(self.of((0.0, 0.5, 0.8, 0.9, 0.95, 1.0)), self.of(BLOCKS))


def random_case(seed: int) -> Case:
    """The case of that number: always the same."""
    chance = _Chance(np.random.default_rng(seed))
    chance.ties = chance.maybe(0.25)
    kinds: tuple[tuple[str, Callable[[_Chance, Int8Model], tuple[Tensor, ...]]], ...] = (
        ("pointwise", _pointwise),
        ("conv", _conv),
        ("first", _first),
        ("depthwise", _depthwise),
        ("dense", _dense),
        ("chain", _chain),
        ("residual", _chain),
        ("pool", _pool),
    )
    shares = (0.2, 0.18, 0.05, 0.13, 0.08, 0.22, 0.08, 0.06)
    kind, make = kinds[int(chance.rng.choice(len(kinds), p=shares))]
    model = Int8Model(chance.rng)
    outputs = make(chance, model)
    densify = chance.of(("outputs", "inputs", "1x4")) if chance.maybe(0.15) else None
    if densify is not None:
        chance.note("densify", along=densify)
    shapes = [tuple(model.graph.tensors[i].shape) for i in model.graph.inputs]
    points = [model.graph.tensors[i].quantization.zeroPoint[0] for i in model.graph.inputs]
    content = model.finish(*outputs, densify=densify)
    return Case(kind, content, tuple(chance.noted), _inputs(chance, shapes[0], int(points[0])))


def _inputs(chance: _Chance, shape: tuple[int, ...], zero_point: int) -> tuple[Array, ...]:
    """Inputs of the whole range, of its ends only, and near what stands for zero."""
    near = np.clip(np.round(chance.rng.normal(zero_point, 4, shape)), -128, 127)
    return (
        chance.rng.integers(-128, 128, shape).astype(np.int8),
        chance.rng.choice(np.array([-128, 127], np.int8), shape),
        near.astype(np.int8),
    )


def _image(chance: _Chance, model: Int8Model, channels: int, most: int = 20) -> Tensor:
    shape = (chance.of((1, 1, 1, 2, 3)), chance.size(most), chance.size(most), channels)
    if chance.maybe(0.1):
        shape = (1, chance.of((28, 33, 56)), chance.of((28, 31, 57)), channels)
    tensor = model.input(shape, chance.scale(), chance.zero_point())
    chance.note("input", shape=shape, scale=tensor.scale, zero_point=tensor.zero_point)
    return tensor


def _window(chance: _Chance, x: Tensor, kernels: tuple[int, ...]) -> Window:
    """One that leaves at least one pixel."""
    while True:
        kernel = (chance.of(kernels),) * 2
        if chance.maybe(0.2):
            kernel = (kernel[0], chance.of(kernels))
        stride = (chance.of((1, 1, 1, 2, 2, 3)),) * 2
        if chance.maybe(0.1):
            stride = (stride[0], chance.of((1, 2)))
        dilation = (chance.of((1, 1, 1, 1, 2, 3)) if stride == (1, 1) else 1,) * 2
        window = Window(kernel, stride, dilation, chance.of(("SAME", "VALID")))
        # XNNPACK pads wrongly where a stride is longer than its kernel: not what to compare with.
        skips = any(s > k for s, k in zip(stride, kernel, strict=True)) and max(kernel) > 1
        if min(window.output(*x.shape[1:3])) >= 1 and not skips:
            return window
        kernels = (*kernels, 1)


def _scales(chance: _Chance, x: Tensor, weights: Array, result: Result, *, each: bool) -> Array:
    """Weights' scales, by output (the first axis) if `each`, that use the output's range."""
    fan = max(1.0, np.count_nonzero(weights) / weights.shape[0])
    spread = np.sqrt(fan) * 73 * 73
    factor = float(np.exp(chance.rng.uniform(np.log(2), np.log(250)))) / spread
    jitter = chance.rng.uniform(0.3, 2, weights.shape[0] if each else 1)
    if chance.maybe(0.03):
        jitter *= 1e-5  # An output whose weights are far smaller than the others'.
    if chance.ties:
        factor, jitter = 2.0 ** round(np.log2(factor)), 2.0 ** np.round(np.log2(jitter))
    return (factor * jitter * result.scale / x.scale).astype(np.float32)


def _bias(
    chance: _Chance, x: Tensor, scales: Array, result: Result, outputs: int, *, none: bool = False
) -> Array:
    """A bias; an empty one, where `none` is allowed: int8 convolutions must have one."""
    kind = chance.of(("usual", "usual", "usual", "zero", "large", *(["none"] if none else [])))
    size = 40 * result.scale / (x.scale * scales)
    if kind == "none":
        return np.zeros(0, np.int32)
    if kind == "zero":
        return np.zeros(outputs, np.int32)
    if kind == "large":
        size = size * chance.of((10, 1e4))
    values = chance.rng.normal(0, 1, outputs) * size
    return np.clip(values, -(2**30), 2**30).astype(np.int32)


def _convolved(
    chance: _Chance, model: Int8Model, x: Tensor, outputs: int, window: Window
) -> Tensor:
    """A convolution with random weights; its `window`'s kernel may be larger than wanted."""
    inputs = x.shape[3]
    pixels = int(np.prod(window.output(*x.shape[1:3]))) * x.shape[0]
    products = pixels * inputs * window.kernel[0] * window.kernel[1]
    outputs = max(1, min(outputs, MAX_PRODUCTS // products))
    zeros, result = chance.zeros(), chance.result()
    low = -128 if chance.maybe(0.1) else -127
    weights = zeros.weights(chance.rng, (outputs, *window.kernel, inputs), low)
    if chance.maybe(0.1):
        weights = np.where(weights > 0, 127, np.where(weights < 0, low, 0)).astype(np.int8)
    scales = _scales(chance, x, weights, result, each=chance.maybe(0.8))
    bias = _bias(chance, x, scales, result, outputs)
    chance.note("conv", outputs=outputs, window=window, zeros=zeros, result=result,
                scales=len(scales), bias=len(bias), ties=chance.ties)  # fmt: skip
    return model.conv(x, weights, window, result, scales, bias)


def _pointwise(chance: _Chance, model: Int8Model) -> tuple[Tensor, ...]:
    wide = (*CHANNELS, 96, 128, 132, 256, 320)
    x = _image(chance, model, chance.of(wide))
    return (_convolved(chance, model, x, chance.of(wide), _window(chance, x, (1,))),)


def _conv(chance: _Chance, model: Int8Model) -> tuple[Tensor, ...]:
    x = _image(chance, model, chance.of(CHANNELS))
    window = _window(chance, x, (2, 3, 3, 3, 5, 7))
    return (_convolved(chance, model, x, chance.of(CHANNELS), window),)


def _first(chance: _Chance, model: Int8Model) -> tuple[Tensor, ...]:
    x = _image(chance, model, chance.of((1, 2, 3)), 40)
    window = _window(chance, x, (3, 3, 5, 7))
    return (_convolved(chance, model, x, chance.of(CHANNELS), window),)


def _depthwised(chance: _Chance, model: Int8Model, x: Tensor) -> Tensor:
    window, result = _window(chance, x, (3, 3, 3, 5, 2, 4, 7)), chance.result()
    outputs = x.shape[3] * (2 if chance.maybe(0.05) else 1)
    shape = (1, *window.kernel, outputs)
    # Zeros anywhere: nobody prunes these in blocks.
    zeros = Zeros(chance.of((0.0, 0.0, 0.0, 0.5, 0.9)), (1, 1))
    weights = zeros.weights(chance.rng, shape)
    by_output = np.moveaxis(weights, 3, 0)
    scales = _scales(chance, x, by_output, result, each=chance.maybe(0.8))
    bias = _bias(chance, x, scales, result, outputs)
    chance.note("depthwise", outputs=outputs, window=window, zeros=zeros, result=result,
                scales=len(scales), bias=len(bias), ties=chance.ties)  # fmt: skip
    return model.depthwise(x, weights, window, result, scales, bias)


def _depthwise(chance: _Chance, model: Int8Model) -> tuple[Tensor, ...]:
    return (_depthwised(chance, model, _image(chance, model, chance.of(CHANNELS))),)


def _densely(chance: _Chance, model: Int8Model, x: Tensor) -> Tensor:
    outputs, zeros, result = chance.of(CHANNELS), chance.zeros(), chance.result()
    weights = zeros.weights(chance.rng, (outputs, x.shape[1]))
    # By output only where runtimes of every version take it: not at all.
    scales = _scales(chance, x, weights, result, each=False)
    bias = _bias(chance, x, scales, result, outputs, none=True)
    chance.note("dense", outputs=outputs, zeros=zeros, result=result, bias=len(bias),
                ties=chance.ties)  # fmt: skip
    return model.dense(x, weights, result, scales, bias)


def _dense(chance: _Chance, model: Int8Model) -> tuple[Tensor, ...]:
    shape = (chance.of((1, 1, 1, 2, 5)), chance.of((*CHANNELS, 100, 256, 333)))
    x = model.input(shape, chance.scale(), chance.zero_point())
    chance.note("input", shape=shape, scale=x.scale, zero_point=x.zero_point)
    return (_densely(chance, model, x),)


def _pooled(chance: _Chance, model: Int8Model, x: Tensor, kind: str) -> Tensor:
    window = _window(chance, x, (1, 2, 2, 3, 3, 5, 7, 8))
    # A pool has no dilation.
    window = Window(window.kernel, window.stride, (1, 1), window.padding)
    activation = chance.of(("NONE", "NONE", "RELU", "RELU6", "RELU_N1_TO_1"))
    chance.note(kind, window=window, activation=activation)
    return model.pool(x, kind, window, activation)


def _pool(chance: _Chance, model: Int8Model) -> tuple[Tensor, ...]:
    x = _image(chance, model, chance.of(CHANNELS))
    return (_pooled(chance, model, x, chance.of(("AVERAGE", "AVERAGE", "MAX"))),)


def _chain(chance: _Chance, model: Int8Model) -> tuple[Tensor, ...]:
    """Two to seven operators, some of which read what an earlier one left."""
    x = _image(chance, model, chance.of((3, 4, 8, 12, 16, 24, 30, 32)), 16)
    left = [x]
    for _ in range(int(chance.rng.integers(2, 8))):
        x = _grown(chance, model, x, left)
        left.append(x)
    outputs = [x]
    if chance.maybe(0.2) and len(left) > 2:
        outputs.append(chance.of(left[1:-1]))
    elif chance.maybe(0.3):
        x = model.mean(x)
        outputs = [_densely(chance, model, x) if chance.maybe(0.7) else x]
        chance.note("mean")
    return tuple(outputs)


def _grown(chance: _Chance, model: Int8Model, x: Tensor, left: list[Tensor]) -> Tensor:
    alike = [tensor for tensor in left[:-1] if tensor.shape == x.shape]
    if alike and chance.maybe(0.6):
        other, result = chance.of(alike), chance.result()
        # As sums are: neither part is lost in the output's steps.
        result = Result(1.5 * max(x.scale, other.scale), result.zero_point, result.activation)
        chance.note("add", of=other.index, result=result)
        return model.add(*((x, other) if chance.maybe(0.5) else (other, x)), result)
    kind = chance.of(("pointwise",) * 4 + ("depthwise",) * 3 + ("conv", "max", "average", "pad"))
    if kind == "pad":
        pads = tuple(int(size) for size in chance.rng.integers(0, 3, 4))
        chance.note("pad", pads=pads)
        return model.pad(x, (pads[0], pads[1], pads[2], pads[3]))
    if kind in ("max", "average"):
        return _pooled(chance, model, x, kind.upper())
    if kind == "depthwise":
        return _depthwised(chance, model, x)
    window = _window(chance, x, (1,) if kind == "pointwise" else (3,))
    same = chance.maybe(0.5)
    return _convolved(chance, model, x, x.shape[3] if same else chance.of(CHANNELS), window)
