"""Writes int8 .tflite files operator by operator, with random weights and chosen zeros."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.tflite.format.encode import Encoding, encode, serialize
from edgesparse.tflite.format.sparse_layout import along, blocks, fits

Pair = tuple[int, int]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Tensor:
    """An int8 tensor of the file; `shape` with the batch."""

    index: int
    shape: tuple[int, ...]
    scale: float
    zero_point: int


@dataclass(frozen=True)
class Window:
    """A kernel's way over an image: sizes are (height, width)."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: str = "SAME"

    def output(self, height: int, width: int) -> Pair:
        """The size of what comes out, (height, width); below 1 where nothing does."""
        sizes = []
        for size, kernel, stride, dilation in zip(
            (height, width), self.kernel, self.stride, self.dilation, strict=True
        ):
            reach = 0 if self.padding == "SAME" else (kernel - 1) * dilation
            sizes.append(-(-(size - reach) // stride))
        return sizes[0], sizes[1]

    def fill(self, options: Any) -> Any:
        """Put it into the options of a convolution or a pooling."""
        options.padding = getattr(schema.Padding, self.padding)
        options.strideH, options.strideW = self.stride
        if hasattr(options, "dilationHFactor"):
            options.dilationHFactor, options.dilationWFactor = self.dilation
        return options


@dataclass(frozen=True)
class Result:
    """An operator's output; `activation` is fused into it."""

    scale: float = 6 / 255
    zero_point: int = -128
    activation: str = "RELU6"


@dataclass(frozen=True)
class Zeros:
    """The share of the weights that is zero, in blocks of (outputs, inputs)."""

    share: float = 0.0
    block: Pair = (2, 4)

    def weights(self, rng: np.random.Generator, shape: Sequence[int], low: int = -127) -> Array:
        """int8 weights [outputs, ..., inputs]; those that are kept are not zero."""
        values = rng.integers(low, 128, shape).astype(np.int8)
        values[values == 0] = 1
        rows, columns = shape[0], int(np.prod(shape[1:]))
        grid = (-(-rows // self.block[0]), -(-columns // self.block[1]))
        count = grid[0] * grid[1]
        kept = np.zeros(count, bool)
        kept[rng.permutation(count)[: round(count * (1 - self.share))]] = True
        mask = np.repeat(np.repeat(kept.reshape(grid), self.block[0], 0), self.block[1], 1)
        return values * mask[:rows, :columns].reshape(shape)


@dataclass
class Int8Model:
    """A model that grows by one operator a call; each returns its output."""

    rng: np.random.Generator
    graph: Any = field(default_factory=schema.SubGraphT)
    model: Any = field(default_factory=schema.ModelT)

    def __post_init__(self) -> None:
        if not self.model.subgraphs:
            self.model.version, self.model.operatorCodes = 3, []
            self.model.buffers, self.model.subgraphs = [schema.BufferT()], []
        self.model.subgraphs.append(self.graph)
        self.graph.tensors, self.graph.operators, self.graph.inputs = [], [], []

    def subgraph(self) -> Int8Model:
        """Another subgraph of the file, which grows as this one does."""
        return Int8Model(self.rng, model=self.model)

    def input(self, shape: Sequence[int], scale: float, zero_point: int) -> Tensor:
        """An input of the model."""
        tensor = self._int8(shape, scale, zero_point)
        self.graph.inputs.append(tensor.index)
        return tensor

    def conv(
        self,
        x: Tensor,
        weights: Array,
        window: Window = Window(),
        result: Result = Result(),
        scales: Array | float | None = None,
        bias: Array | None = None,
    ) -> Tensor:
        """A convolution with weights [outputs, height, width, inputs]; an empty bias: none."""
        window = Window(weights.shape[1:3], window.stride, window.dilation, window.padding)
        height, width = window.output(*x.shape[1:3])
        options = window.fill(schema.Conv2DOptionsT())
        shape = (x.shape[0], height, width, weights.shape[0])
        return self._weighted("CONV_2D", 3, x, weights, shape, result, options, scales, bias, 0)

    def depthwise(
        self,
        x: Tensor,
        weights: Array,
        window: Window = Window(),
        result: Result = Result(),
        scales: Array | float | None = None,
        bias: Array | None = None,
    ) -> Tensor:
        """A depthwise convolution with weights [1, height, width, channels x multiplier]."""
        window = Window(weights.shape[1:3], window.stride, window.dilation, window.padding)
        height, width = window.output(*x.shape[1:3])
        options = window.fill(schema.DepthwiseConv2DOptionsT())
        options.depthMultiplier = weights.shape[3] // x.shape[3]
        shape = (x.shape[0], height, width, weights.shape[3])
        name = "DEPTHWISE_CONV_2D"
        return self._weighted(name, 3, x, weights, shape, result, options, scales, bias, 3)

    def dense(
        self,
        x: Tensor,
        weights: Array,
        result: Result = Result(0.1, 0, "NONE"),
        scales: Array | float | None = None,
        bias: Array | None = None,
    ) -> Tensor:
        """A fully connected layer with weights [outputs, inputs]."""
        options, shape = schema.FullyConnectedOptionsT(), (x.shape[0], weights.shape[0])
        version = 12 if np.size(scales if scales is not None else 1) > 1 else 4
        name = "FULLY_CONNECTED"
        return self._weighted(name, version, x, weights, shape, result, options, scales, bias, 0)

    def add(self, a: Tensor, b: Tensor, result: Result) -> Tensor:
        """The sum of two tensors of one shape."""
        options = schema.AddOptionsT()
        return self._operator("ADD", 2, [a.index, b.index], a.shape, result, options)

    def pool(self, x: Tensor, kind: str, window: Window, activation: str = "NONE") -> Tensor:
        """MAX or AVERAGE of each window."""
        options = window.fill(schema.Pool2DOptionsT())
        options.filterHeight, options.filterWidth = window.kernel
        shape = (x.shape[0], *window.output(*x.shape[1:3]), x.shape[3])
        result = Result(x.scale, x.zero_point, activation)
        return self._operator(f"{kind}_POOL_2D", 2, [x.index], shape, result, options)

    def pad(self, x: Tensor, pads: tuple[int, int, int, int]) -> Tensor:
        """Pixels of the zero point around an image: (top, bottom, left, right)."""
        top, bottom, left, right = pads
        sizes = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        constant = self._constant(sizes, schema.TensorType.INT32)
        n, height, width, channels = x.shape
        shape = (n, height + top + bottom, width + left + right, channels)
        result = Result(x.scale, x.zero_point, "")
        return self._operator("PAD", 2, [x.index, constant], shape, result, schema.PadOptionsT())

    def mean(self, x: Tensor, *, keep: bool = False) -> Tensor:
        """The mean over height and width."""
        axes = self._constant(np.array([1, 2], np.int32), schema.TensorType.INT32)
        options = schema.ReducerOptionsT(keepDims=keep)
        middle = (1, 1) if keep else ()
        shape = (x.shape[0], *middle, x.shape[3])
        result = Result(x.scale, x.zero_point, "")
        return self._operator("MEAN", 2, [x.index, axes], shape, result, options)

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """A reshape: the same values in another shape."""
        sizes = self._constant(np.array(shape, np.int32), schema.TensorType.INT32)
        options = schema.ReshapeOptionsT(newShape=list(shape))
        result = Result(x.scale, x.zero_point, "")
        return self._operator("RESHAPE", 1, [x.index, sizes], shape, result, options)

    def finish(self, *outputs: Tensor, densify: str | None = None) -> bytes:
        """The file. `densify`: convolutions' weights are stored sparse behind DENSIFY, along
        "outputs", "inputs" or in blocks of "1x4", where they fit."""
        self.graph.outputs = [tensor.index for tensor in outputs]
        content = serialize(self.model, aligned=True)
        if densify is None:
            return content

        def choose(constant: Any) -> Encoding | None:
            rank = constant.values.ndim
            if constant.values.dtype != np.int8 or rank != 4:
                return None
            forms = {"outputs": along(rank, 0), "inputs": along(rank, 3), "1x4": blocks(rank, 4)}
            layout = forms[densify]
            return Encoding(layout, True) if fits(layout, constant.values.shape) else None

        return encode(content, choose)

    def _weighted(
        self,
        name: str,
        version: int,
        x: Tensor,
        weights: Array,
        shape: Sequence[int],
        result: Result,
        options: Any,
        scales: Array | float | None,
        bias: Array | None,
        dimension: int,
    ) -> Tensor:
        outputs = weights.shape[dimension]
        if scales is None:
            # Outputs spread over a sixth of the range or more, whatever the number of weights.
            other = tuple(i for i in range(weights.ndim) if i != dimension)
            fan = np.maximum(1, np.count_nonzero(weights, other))
            spread = np.sqrt(fan) * 73 * 60 * x.scale
            scales = (result.scale * 50 / spread * self.rng.uniform(0.7, 1.4, outputs))[
                : None if name != "FULLY_CONNECTED" else 1
            ]
        scales = np.atleast_1d(np.asarray(scales, np.float32))
        if bias is None:
            size = 50 * result.scale / (x.scale * scales)
            bias = (self.rng.normal(0, 1, outputs) * size).astype(np.int32)
        inputs = [x.index, self._constant(weights, schema.TensorType.INT8, scales, dimension)]
        if bias.size:
            sizes = (np.float32(x.scale) * scales).astype(np.float32)
            inputs.append(self._constant(bias, schema.TensorType.INT32, sizes))
        return self._operator(name, version, inputs, shape, result, options)

    def _operator(
        self,
        name: str,
        version: int,
        inputs: Sequence[int],
        shape: Sequence[int],
        result: Result,
        options: Any,
    ) -> Tensor:
        number = getattr(schema.BuiltinOperator, name)
        codes = self.model.operatorCodes
        versions = [(code.builtinCode, code.version) for code in codes]
        if (number, version) not in versions:
            versions.append((number, version))
            codes.append(schema.OperatorCodeT(min(number, 127), None, version, number))
        if result.activation:
            kinds = schema.ActivationFunctionType
            options.fusedActivationFunction = getattr(kinds, result.activation)
        output = self._int8(shape, result.scale, result.zero_point)
        kind = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.graph.operators.append(
            schema.OperatorT(
                opcodeIndex=versions.index((number, version)),
                inputs=list(inputs),
                outputs=[output.index],
                builtinOptionsType=kind,
                builtinOptions=options,
            )
        )
        return output

    def _int8(self, shape: Sequence[int], scale: float, zero_point: int) -> Tensor:
        kind = schema.TensorType.INT8
        index = self._tensor(shape, kind, np.float32([scale]), zero_point, 0, 0)
        return Tensor(index, tuple(shape), float(np.float32(scale)), zero_point)

    def _constant(
        self, values: Array, kind: int, scales: Array | None = None, dimension: int = 0
    ) -> int:
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self.model.buffers.append(schema.BufferT(data=data))
        return self._tensor(values.shape, kind, scales, 0, dimension, len(self.model.buffers) - 1)

    def _tensor(
        self,
        shape: Sequence[int],
        kind: int,
        scales: Array | None,
        zero_point: int,
        dimension: int,
        buffer: int,
    ) -> int:
        tensor = schema.TensorT(shape=list(shape), type=kind, buffer=buffer)
        tensor.name = f"t{len(self.graph.tensors)}"
        if scales is not None:
            points = np.full(len(scales), zero_point, np.int64)
            tensor.quantization = schema.QuantizationParametersT(
                scale=scales, zeroPoint=points, quantizedDimension=dimension
            )
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1
