"""Operators for edgesparse's delegate: whether it can run them, and their work.

The rules are those of delegate/src/claim.cc, in its order and with its reasons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgesparse.delegate.cost import DEPTHWISE, FLAT, Layer, Pair, kept_blocks
from edgesparse.tflite.format.flatbuffer import Constant, indices, label, operator_name

CONV = "CONV_2D"
ADD, PAD, DENSIFY = "ADD", "PAD", "DENSIFY"
POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D")
WEIGHTED = (CONV, DEPTHWISE, FLAT)
_TYPES = schema.TensorType
_MOST = 1 << 26


@dataclass(frozen=True)
class Node:
    """An operator of a file, and whether the delegate runs it.

    Attributes:
        reads: tensors of activations; `writes` is the tensor of its output.
        weights: the tensor of its weights, -1 where it has none.
        why: why the delegate cannot run it, or leaves it.
        layer: its work; None where its shapes are unknown.
        zeros: share of its weights.
        images: of a batch, in the layer's pixels.
    """

    operator: int
    op: str
    label: str
    reads: tuple[int, ...]
    writes: int
    weights: int = -1
    why: str = ""
    layer: Layer | None = None
    zeros: float = 0.0
    taken: bool = False
    images: int = 1


class _Left(Exception):
    """The delegate cannot run a node; the message is the reason."""


@dataclass
class Reader:
    """Reads the nodes of a model's first subgraph.

    Args:
        constants: those of the subgraph, by tensor.
        as_int8: the file has floats, and stands for the int8 file of the same network.
    """

    model: Any
    constants: Mapping[int, Constant]
    as_int8: bool = False
    decoded: dict[int, int] = field(default_factory=dict)
    """Which tensor a DENSIFY decodes to which, backwards."""

    @property
    def graph(self) -> Any:
        return self.model.subgraphs[0]

    def node(self, number: int, operator: Any) -> Node:
        """Read an operator; those before it must have been read."""
        op = operator_name(self.model, operator)
        inputs, outputs = indices(operator.inputs), indices(operator.outputs)
        written = outputs[0] if outputs else -1
        weights = inputs[1] if op in WEIGHTED and len(inputs) > 1 else -1
        constant = self._weights(weights) if weights >= 0 else None
        name = constant.label if constant is not None else self._label(written)
        node = Node(number, op, name, tuple(inputs[: 2 if op == ADD else 1]), written, weights)
        why = ""
        if op == DENSIFY and len(inputs) == len(outputs) == 1:
            self.decoded[outputs[0]] = inputs[0]
            return node
        try:
            self._check(op, operator, inputs, outputs, constant)
        except _Left as reason:
            why = str(reason)
        zeros = constant.zeros / max(1, constant.values.size) if constant is not None else 0.0
        layer = self._layer(op, operator, inputs, outputs, constant)
        shape = self.shape(written) if written >= 0 else []
        images = max(1, shape[0]) if op != FLAT and len(shape) == 4 else 1
        return replace(node, why=why, layer=layer, zeros=zeros, images=images)

    def _label(self, tensor: int) -> str:
        name = self.graph.tensors[tensor].name if tensor >= 0 else b""
        return label((name or b"").decode("utf-8", "replace"))

    def _weights(self, tensor: int) -> Constant | None:
        source = self.decoded.get(tensor, -1)
        constant = self.constants.get(tensor) or self.constants.get(source)
        if constant is None and source >= 0 and self.graph.tensors[source].sparsity is not None:
            # Nothing is stored of a tensor of zeros only, so that it is not among the constants.
            details = self.graph.tensors[source]
            zeros = np.zeros(indices(details.shape), np.int8)
            name, buffer = (details.name or b"").decode("utf-8", "replace"), details.buffer
            return Constant(0, source, buffer, name, CONV, 0, 1, zeros, None, True, 0, 1, "int8")
        return constant

    def shape(self, tensor: int) -> list[int]:
        return indices(self.graph.tensors[tensor].shape)

    def _layer(
        self,
        op: str,
        operator: Any,
        inputs: Sequence[int],
        outputs: Sequence[int],
        constant: Constant | None,
    ) -> Layer | None:
        """Describe an operator's work, that of others than products as elements."""
        if not outputs or not inputs or min(inputs[0], outputs[0]) < 0:
            return None
        shape = self.shape(outputs[0])
        if op not in WEIGHTED or constant is None or constant.values.ndim not in (2, 4):
            channels = shape[-1] if shape else 1
            worked = (
                inputs[0] if op in ("MEAN", POOLS[0]) else outputs[0]
            )  # Means' work is to read.
            pixels = math.prod(self.shape(worked)[:-1])
            return Layer(op, channels, channels, (1, max(1, pixels)))
        weights, kept = constant.values, {}
        if op != DEPTHWISE:
            kept = kept_blocks(
                weights if not constant.zero_point else weights - constant.zero_point
            )
        if op == FLAT:
            return Layer(
                op,
                weights.shape[1],
                weights.shape[0],
                (1, max(1, math.prod(shape) // max(1, weights.shape[0]))),
                kept=kept,
            )
        options = operator.builtinOptions
        return Layer(
            op,
            weights.shape[3],
            weights.shape[3] if op == DEPTHWISE else weights.shape[0],
            (shape[0] * shape[1], shape[2]) if len(shape) == 4 else (1, 1),
            (weights.shape[1], weights.shape[2]),
            (options.strideH, options.strideW),
            (options.dilationHFactor, options.dilationWFactor),
            **({} if op == DEPTHWISE else {"kept": kept}),
        )

    def _check(
        self,
        op: str,
        operator: Any,
        inputs: Sequence[int],
        outputs: Sequence[int],
        constant: Constant | None,
    ) -> None:
        if op not in (*WEIGHTED, *POOLS, ADD, PAD):
            raise _Left("operator not supported")
        if len(inputs) < (1 if op in POOLS else 2) or len(outputs) != 1:
            raise _Left("unexpected number of inputs")
        if any(t < 0 and not (op in WEIGHTED and i == 2) for i, t in enumerate(inputs)):
            raise _Left("missing input")
        if outputs[0] < 0:
            raise _Left("missing output")
        options, x, y = operator.builtinOptions, inputs[0], outputs[0]
        if op == FLAT:
            self._fully_connected(options, inputs, y, constant)
        elif op == ADD:
            self._add(inputs, y)
        elif op == PAD:
            self._pad(inputs, y)
        elif op in POOLS:
            self._activations(x, y)
            self._same_quantization(x, y)
            if self.shape(x)[::3] != self.shape(y)[::3]:
                raise _Left("unexpected shape")
            self._window(options, (options.filterHeight, options.filterWidth), (1, 1), x, y)
        else:
            self._convolution(op, options, inputs, y, constant)
        activation = getattr(options, "fusedActivationFunction", 0)
        # None, RELU, RELU_N1_TO_1, RELU6.
        if op != PAD and not 0 <= activation <= 3:
            raise _Left("activation not supported")

    def _quantization(self, tensor: int) -> tuple[float, int]:
        """The scale and zero point of an activation; (0, 0) without a single scale."""
        if self.as_int8:
            return 1.0, 0
        quantization = self.graph.tensors[tensor].quantization
        scales = [] if quantization is None or quantization.scale is None else quantization.scale
        if len(scales) != 1:
            return 0.0, 0
        points = indices(quantization.zeroPoint)
        return float(scales[0]), points[0] if points else 0

    def _activations(self, *tensors: int, rank: int = 4) -> None:
        for tensor in tensors:
            details, shape = self.graph.tensors[tensor], self.shape(tensor)
            if details.type != (_TYPES.FLOAT32 if self.as_int8 else _TYPES.INT8):
                raise _Left("not int8")
            if details.isVariable:
                raise _Left("a variable")
            if len(shape) != rank:
                raise _Left("unexpected rank")
            if any(size < 1 for size in shape):
                raise _Left("dimension without elements")
            if math.prod(shape) >= _MOST:
                raise _Left("too large")
            scale, zero_point = self._quantization(tensor)
            if not (scale > 0 and math.isfinite(scale)):
                raise _Left("no scale")
            if not -128 <= zero_point <= 127:
                raise _Left("zero point out of range")

    def _same_quantization(self, x: int, y: int) -> None:
        if self._quantization(x) != self._quantization(y):
            raise _Left("another quantization")

    def _ratio(self, x: int, y: int, least: float, limit: float) -> None:
        scales = [np.float32(self._quantization(tensor)[0]) for tensor in (x, y)]
        if not least <= scales[0] / scales[1] < limit:
            raise _Left("scale out of range")

    def _check_weights(
        self, inputs: Sequence[int], y: int, constant: Constant | None, rank: int, dimension: int
    ) -> None:
        details = self.graph.tensors[inputs[1]]
        if details.type != (_TYPES.FLOAT32 if self.as_int8 else _TYPES.INT8):
            raise _Left("weights are not int8")
        shape = self.shape(inputs[1])
        if len(shape) != rank:
            raise _Left("unexpected rank of weights")
        if any(size < 1 for size in shape):
            raise _Left("weights without elements")
        if math.prod(shape) >= _MOST:
            raise _Left("too many weights")
        if constant is None:
            raise _Left("weights are not constant")
        if self.as_int8:
            return
        source = self.graph.tensors[constant.tensor]
        quantization = (
            details.quantization if details.quantization is not None else source.quantization
        )
        if quantization is None or quantization.scale is None or not len(quantization.scale):
            raise _Left("weights without scales")
        scales = np.asarray(quantization.scale, np.float32)
        if len(scales) != 1 and (
            len(scales) != shape[dimension] or quantization.quantizedDimension != dimension
        ):
            raise _Left("scales of another dimension")
        if not (np.isfinite(scales) & (scales > 0)).all():
            raise _Left("a scale of weights is not positive")
        if any(indices(quantization.zeroPoint)):
            raise _Left("weights with a zero point")
        self._check_range(inputs, y, constant.values, scales, dimension)

    def _check_range(
        self, inputs: Sequence[int], y: int, weights: Any, scales: Any, dimension: int
    ) -> None:
        """The accumulator must fit 32 bits, and the scaled one an int."""
        outputs = weights.shape[dimension]
        bias = np.zeros(outputs)
        if len(inputs) > 2 and inputs[2] >= 0:
            details = self.graph.tensors[inputs[2]]
            data = self.model.buffers[details.buffer].data
            if details.type != _TYPES.INT32 or data is None or not len(data):
                raise _Left("bias is not constant int32")
            if math.prod(self.shape(inputs[2])) != outputs or len(data) < 4 * outputs:
                raise _Left("unexpected size of bias")
            bias = np.frombuffer(memoryview(data), np.int32)[:outputs].astype(np.float64)
        rows = np.moveaxis(weights, dimension, 0).reshape(outputs, -1)
        sums = np.abs(bias) + 512.0 * np.abs(rows.astype(np.int64)).sum(axis=1)
        x_scale, y_scale = (np.float32(self._quantization(t)[0]) for t in (inputs[0], y))
        factors = (x_scale * scales / y_scale).astype(np.float32)
        for total, factor in zip(sums, np.broadcast_to(factors, outputs), strict=True):
            if total >= 2147483647.0:
                raise _Left("accumulator may overflow")
            if not factor > 0 or factor >= 256 or total * float(factor) >= 1073741824.0:
                raise _Left("scale out of range")

    def _convolution(
        self, op: str, options: Any, inputs: Sequence[int], y: int, constant: Constant | None
    ) -> None:
        self._activations(inputs[0], y)
        depthwise = op == DEPTHWISE
        self._check_weights(inputs, y, constant, 4, 3 if depthwise else 0)
        weights, x, out = (self.shape(t) for t in (inputs[1], inputs[0], y))
        if depthwise and (weights[0] != 1 or weights[3] != x[3]):
            raise _Left("depth multiplier other than 1")
        if not depthwise and weights[3] != x[3]:
            raise _Left("grouped convolution")
        if out[3] != weights[3 if depthwise else 0] or out[0] != x[0]:
            raise _Left("unexpected shape")
        dilation = (options.dilationHFactor, options.dilationWFactor)
        self._window(options, (weights[1], weights[2]), dilation, inputs[0], y)

    def _fully_connected(
        self, options: Any, inputs: Sequence[int], y: int, constant: Constant | None
    ) -> None:
        x, out = self.shape(inputs[0]), self.shape(y)
        if not 1 <= len(x) <= 4 or not 1 <= len(out) <= 4:
            raise _Left("unexpected rank")
        self._activations(inputs[0], rank=len(x))
        self._activations(y, rank=len(out))
        if options.weightsFormat:
            raise _Left("shuffled weights")
        self._check_weights(inputs, y, constant, 2, 0)
        outputs, depth = self.shape(inputs[1])
        if math.prod(x) % depth or math.prod(out) != math.prod(x) // depth * outputs:
            raise _Left("unexpected shape")

    def _window(self, options: Any, kernel: Pair, dilation: Pair, x: int, y: int) -> None:
        stride = (options.strideH, options.strideW)
        if not all(1 <= size <= 8 for size in stride):
            raise _Left("stride over 8")
        if not all(1 <= size <= 64 for size in dilation):
            raise _Left("dilation over 64")
        if not all(1 <= size <= 15 for size in kernel):
            raise _Left("window over 15")
        same, a, b = options.padding == schema.Padding.SAME, self.shape(x), self.shape(y)
        padded = 8.0 * -(-a[3] // 4) * math.prod(stride)
        for i in range(2):
            reach, size = (kernel[i] - 1) * dilation[i], a[1 + i]
            if reach > 64:
                raise _Left("window over 64 pixels")
            padded *= (size + 2.0 * reach) / stride[i] + 1
            out = -(-size // stride[i]) if same else (size - reach - 1) // stride[i] + 1
            if same and kernel != (1, 1) and (out - 1) * stride[i] + reach + 1 < size:
                raise _Left("stride beyond the window with SAME padding")
            if out < 1 or out != b[1 + i]:
                raise _Left("unexpected shape of output")
        if padded >= 1 << 30:
            raise _Left("too large")

    def _add(self, inputs: Sequence[int], y: int) -> None:
        a, b = inputs[:2]
        self._activations(a, b, y)
        if self._is_constant(a) or self._is_constant(b):
            raise _Left("constant operand")
        if not self.shape(a) == self.shape(b) == self.shape(y):
            raise _Left("broadcast")
        self._ratio(a, y, 1 / 1024, 256)
        self._ratio(b, y, 1 / 1024, 256)

    def _pad(self, inputs: Sequence[int], y: int) -> None:
        x = inputs[0]
        self._activations(x, y)
        kinds = (_TYPES.INT32, _TYPES.INT64)
        pads = self._numbers(inputs[1], 8, kinds, "paddings are not constant").reshape(4, 2)
        self._same_quantization(x, y)
        if pads[0].any() or pads[3].any():
            raise _Left("padded batch or channels")
        if (pads < 0).any() or (pads > 4096).any():
            raise _Left("unexpected paddings")
        grown = [size + int(pads[i].sum()) for i, size in enumerate(self.shape(x))]
        if grown != self.shape(y):
            raise _Left("unexpected shape of output")

    def _numbers(self, tensor: int, count: int, kinds: Sequence[int], why: str) -> NDArray[Any]:
        """Return constant integers of one of these types; without them the reason is `why`."""
        details = self.graph.tensors[tensor]
        data = self.model.buffers[details.buffer].data
        size = 8 if details.type == _TYPES.INT64 else 4
        good = details.type in kinds and math.prod(self.shape(tensor)) == count
        if data is None or not good or len(data) < size * count:
            raise _Left(why)
        return np.frombuffer(memoryview(data), f"<i{size}")[:count]

    def _is_constant(self, tensor: int) -> bool:
        data = self.model.buffers[self.graph.tensors[tensor].buffer].data
        return data is not None and len(data) > 0
