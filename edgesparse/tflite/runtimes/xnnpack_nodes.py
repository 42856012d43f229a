"""Operators for XNNPACK's sparse path: whether they can start, be in or end a part of a network.

The rules are those of xnnpack.py, operator by operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.tflite.format.flatbuffer import Constant, dtype_of, indices, label, operator_name
from edgesparse.tflite.runtimes.compatibility import SparsePath

_SAME = schema.Padding.SAME
_UNARY = (
    "ABS",
    "CEIL",
    "ELU",
    "FLOOR",
    "HARD_SWISH",
    "LEAKY_RELU",
    "LOGISTIC",
    "NEG",
    "RELU",
    "RELU6",
    "RELU_N1_TO_1",
    "ROUND",
    "SQUARE",
)
_STATIC = ("DENSIFY", "DEQUANTIZE")
_PLAIN = ("float32", "float16")


@dataclass(eq=False)
class Node:
    """An operator in XNNPACK. `why` says why it can be neither entry, inside nor end."""

    operator: int
    op: str
    label: str
    inputs: list[int]
    output: int
    entry: bool = False
    inside: bool = False
    end: bool = False
    why: str = ""
    leader: int = 0
    broken: str = ""
    pointwise: bool = False

    @property
    def switches(self) -> bool:
        return self.inside or self.end

    @property
    def description(self) -> str:
        return f"{self.op} '{self.label}' {self.why}"


def read_nodes(
    model: Any, graph: Any, weights: Mapping[int, Constant], runtime: SparsePath
) -> list[Node]:
    """Return the operators in order; explicit paddings are merged into their convolution."""
    tensors = graph.tensors
    static = {t for t, tensor in enumerate(tensors) if _is_static(model, tensor)}
    operators = list(enumerate(graph.operators or ()))
    for _, operator in operators:
        if operator_name(model, operator) in _STATIC and indices(operator.inputs)[0] in static:
            static.update(indices(operator.outputs))
    read = [t for _, o in operators for t in indices(o.inputs)] + indices(graph.outputs)
    pads: dict[int, tuple[int, list[int]]] = {}
    nodes: dict[int, Node] = {}
    for number, operator in operators:
        name, inputs = operator_name(model, operator), indices(operator.inputs)
        outputs = indices(operator.outputs)
        if not outputs or outputs[0] in static:
            continue
        if name == "PAD" and read.count(outputs[0]) == 1:
            amounts = _paddings(model, tensors[inputs[1]])
            if amounts is not None:
                pads[outputs[0]] = (inputs[0], amounts)
        dynamic = [t for t in inputs if t >= 0 and t not in static]
        node = Node(number, name, _label(tensors[outputs[0]]), dynamic, outputs[0])
        shapes = [indices(tensors[t].shape) for t in inputs if t >= 0]
        dtypes = [_dtype(tensors[t]) for t in (*dynamic, outputs[0])]
        weight = weights.get(number)
        if weight is not None:
            dtypes.append(weight.values.dtype.name)
            is_1x1 = name == "CONV_2D" and weight.values.shape[1:3] == (1, 1)
            node.pointwise = is_1x1 or (name == "FULLY_CONNECTED" and runtime.fully_connected)
        other = next((dtype for dtype in dtypes if dtype not in _PLAIN), None)
        if other is not None:
            node.why = f"has dtype {other}; the sparse path supports floats only"
        elif name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            explicit = None
            options = operator.builtinOptions
            if inputs[0] in pads and options.padding != _SAME:
                node.inputs[0], explicit = pads[inputs[0]]
                del nodes[inputs[0]]
            classify = _convolution if name == "CONV_2D" else _depthwise
            if weight is None:
                node.why = "has no constant weights"
            else:
                classify(node, options, weight, shapes[0][3], explicit)
        else:
            _other(node, shapes, static, inputs, runtime, weight is not None)
        nodes[node.output] = node
    return list(nodes.values())


def _convolution(
    node: Node, options: Any, weight: Constant, channels_in: int, explicit: list[int] | None
) -> None:
    _, height, width, channels = weight.values.shape
    stride = (options.strideH, options.strideW)
    if channels != channels_in:
        node.why = "has groups"
    elif _is_dilated(options):
        node.why = "is dilated"
    elif node.pointwise:
        if stride != (1, 1):
            node.why = f"has stride {stride[0]}; a 1x1 convolution must have stride 1"
        elif explicit is not None and any(explicit):
            node.why = "is padded; a 1x1 convolution must not be"
        else:
            node.inside = True
    elif (height, width) != (3, 3):
        node.why = f"is {height}x{width}; only 1x1, and 3x3 for the first, are supported"
    elif stride != (2, 2):
        node.why = "is 3x3 with stride 1; a 3x3 convolution must be the first, with stride 2"
    elif channels != 3:
        node.why = f"has {channels} input channels; the first convolution must have 3"
    elif explicit != [1, 1, 1, 1]:
        node.why = _padding_reason(options, 1)
    else:
        node.entry = True


def _depthwise(
    node: Node, options: Any, weight: Constant, channels_in: int, explicit: list[int] | None
) -> None:
    _, height, width, channels = weight.values.shape
    stride = (options.strideH, options.strideW)
    needed = height // 2
    if _is_dilated(options):
        node.why = "is dilated"
    elif channels != channels_in:
        node.why = f"has a depth multiplier of {channels // max(1, channels_in)}, not 1"
    elif stride not in ((1, 1), (2, 2)):
        node.why = f"has stride {stride[0]}x{stride[1]}; only 1 and 2 are supported"
    elif (height, width) not in ((3, 3), (5, 5)):
        node.why = f"is {height}x{width}; only 3x3 and 5x5 are supported"
    elif options.padding == _SAME and stride == (1, 1):
        node.inside = True
    elif explicit != [needed] * 4:
        node.why = _padding_reason(options, needed)
    else:
        node.inside = True


def _is_dilated(options: Any) -> bool:
    return (options.dilationHFactor, options.dilationWFactor) != (1, 1)


def _padding_reason(options: Any, needed: int) -> str:
    if options.padding == _SAME:
        return (
            f"has stride {options.strideH} with TensorFlow's 'same' padding; the sparse path "
            f"requires symmetric padding: ZeroPadding2D({needed}) and 'valid'"
        )
    return f"is not padded by {needed} on each side"


def _other(
    node: Node,
    shapes: list[list[int]],
    static: set[int],
    inputs: list[int],
    runtime: SparsePath,
    weighted: bool,
) -> None:
    rank = len(shapes[0]) if shapes else 0
    if node.op == "MEAN" and rank == 4:
        node.inside = node.end = True
    elif node.op == "DEPTH_TO_SPACE":
        node.end = True
    elif node.op == "FULLY_CONNECTED" and runtime.fully_connected and weighted:
        node.inside = True
    elif node.op in ("ADD", "MUL"):
        if any(len(shape) != 4 for shape in shapes):
            node.why = "has an input without 4 dimensions"
        elif any(
            t in static and sum(d > 1 for d in s) > 1 for t, s in zip(inputs, shapes, strict=True)
        ):
            node.why = "has a constant that is neither a scalar nor a vector"
        else:
            node.inside = True
    elif node.op == "RESIZE_BILINEAR":
        node.inside = shapes[0][1] > 1 and shapes[0][2] > 1
        node.why = "resizes a single row or column"
    elif node.op in (*_UNARY, *runtime.unary) and rank == 4:
        node.inside = True
    elif node.op in runtime.apart:
        node.why = "is not delegated to XNNPACK by this runtime"
    else:
        node.why = "is not supported on the sparse path"


def _is_static(model: Any, tensor: Any) -> bool:
    buffer = model.buffers[tensor.buffer]
    return buffer.offset > 1 or (buffer.data is not None and len(buffer.data) > 0)


def _paddings(model: Any, tensor: Any) -> list[int] | None:
    """Return the paddings above, below, left and right; None for other or unknown paddings."""
    data = model.buffers[tensor.buffer].data
    if data is None or tensor.type != schema.TensorType.INT32 or len(data) != 32:
        return None
    amounts = np.frombuffer(memoryview(data), np.int32)
    if amounts[[0, 1, 6, 7]].any():
        return None
    return [int(amount) for amount in amounts[2:6]]


def _dtype(tensor: Any) -> str:
    return np.dtype(dtype_of(tensor) or np.void).name


def _label(tensor: Any) -> str:
    return label((tensor.name or b"").decode("utf-8", "replace"))
