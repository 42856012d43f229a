"""Where XNNPACK runs 1x1 convolutions on its sparse path, checked on the graph as XNNPACK does.

Its sparse path (Elsen et al. 2019, arXiv 1911.09723) keeps activations channel by channel (NCHW).
So a part of the network must switch as a whole: from a 3x3 stride-2 convolution of an image, over
operators that exist in that layout, to a global pooling. The rules are those of
`xnn_subgraph_rewrite_for_nchw` in XNNPACK's subgraph.c, from 2023 (tflite-runtime 2.14) to 2026;
where they depend on the runtime, its `SparsePath` says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.tflite.compatibility import SparsePath
from edgesparse.tflite.graph import Constant, dtype_of, indices, label, operator_name

ENOUGH = 2 / 3
"""More than this share of the part's 1x1 weights must be zero."""
State = Literal["taken", "dense", "wrong"]
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


@dataclass(frozen=True)
class Path:
    """What XNNPACK does with a 1x1 convolution whose zeros are stored sparse somewhere.

    taken: skips its zeros. dense: computes them. wrong: it would fail or answer wrong, since the
    part ends in an operator that does not understand its layout. `reason` names the condition, for
    people.
    """

    state: State
    reason: str


@dataclass(eq=False)
class _Node:
    """An operator as XNNPACK sees it. `why` tells why it is neither entry, inside nor end."""

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
    def told(self) -> str:
        return f"{self.op} '{self.label}' {self.why}"


@dataclass
class _Part:
    """One subgraph and what is known of its tensors."""

    nodes: list[_Node]
    outside: set[int]
    """Tensors that others than XNNPACK write or read."""
    cut: Mapping[int, str]
    """Those of operators that the runtime keeps from XNNPACK, with what is to say of these."""
    spatial: Mapping[int, int]
    """Pixels of each tensor."""
    constants: Mapping[int, Constant]
    """The weight of each operator."""
    runtime: SparsePath
    share: float | None
    """Of zeros, where those of the weights do not count."""
    producers: dict[int, int] = field(default_factory=dict)


def sparse_paths(
    model: Any, constants: Sequence[Constant], runtime: SparsePath, share: float | None = None
) -> dict[tuple[int, int], Path]:
    """For each 1x1 convolution, by subgraph and operator: whether its zeros are skipped.

    That supposes that at least one weight of the network is stored sparse, which is what makes
    XNNPACK look.

    Args:
        constants: of the model, as `graph.constants` finds them.
        runtime: what is particular to the runtime's XNNPACK.
        share: of zeros that every 1x1 weight is supposed to have; default: those it has.
    """
    found = {}
    for g, graph in enumerate(model.subgraphs):
        weights = {c.operator: c for c in constants if c.graph == g and c.slot == 1}
        nodes = _nodes(model, graph, weights, runtime)
        apart = [node for node in nodes if node.op in runtime.apart]
        cut = {t: node.told for node in apart for t in (*node.inputs, node.output)}
        outside = {*indices(graph.inputs), *indices(graph.outputs), *cut}
        spatial = {t: _pixels(tensor) for t, tensor in enumerate(graph.tensors)}
        for members in _cut([node for node in nodes if node not in apart], cut):
            part = _Part(members, outside, cut, spatial, weights, runtime, share)
            for operator, path in _judge(part).items():
                found[g, operator] = path
    return found


def _cut(nodes: list[_Node], cut: Collection[int]) -> list[list[_Node]]:
    """The parts of a graph that are connected by other tensors than those of `cut`."""
    home: dict[int, int] = {}
    parts: dict[int, list[_Node]] = {}
    for number, node in enumerate(nodes):
        tensors = [t for t in (*node.inputs, node.output) if t not in cut]
        near = sorted({home[t] for t in tensors if t in home})
        parts[number] = [*(member for place in near for member in parts.pop(place)), node]
        for member in parts[number]:
            home.update((t, number) for t in (*member.inputs, member.output) if t not in cut)
    return [sorted(members, key=lambda node: node.operator) for members in parts.values()]


def _judge(part: _Part) -> dict[int, Path]:
    nodes = part.nodes
    part.producers = {node.output: n for n, node in enumerate(nodes)}
    for n, node in enumerate(nodes):
        node.leader = n
    joined = sum(_join(part, node) for node in nodes if node.end) > 0
    again = joined
    while again:
        again = sum(_join(part, n) for n in nodes if n.switches and not n.broken) > 0
    for node in nodes:
        leader = nodes[node.leader]
        leader.broken = leader.broken or node.broken
    _check_readers(part)
    zeros = _zero_shares(part)
    switched: set[int] = set()
    for node in nodes:
        if joined and node.switches and _whole(part, node) and zeros.get(node.leader, 0) > ENOUGH:
            switched.update(node.inputs)
    wrong = {
        node.leader: _misread(part, node)
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
    node: _Node,
    joined: bool,
    zeros: Mapping[int, float],
    switched: set[int],
    wrong: Mapping[int, str],
) -> Path:
    leader = part.nodes[node.leader]
    if node.leader in wrong:
        return Path("wrong", wrong[node.leader])
    if not node.inside:
        return Path("dense", node.told)
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


def _join(part: _Part, node: _Node) -> bool:
    """Put a node into the part of those that it reads from; whether that changed anything."""
    changed = False
    for tensor in node.inputs:
        producer = part.producers.get(tensor)
        if producer is None or tensor in part.outside:
            if tensor in part.cut:
                node.broken = part.cut[tensor]
            elif producer is None:
                node.broken = f"{node.op} '{node.label}' reads the model's input, where a 3x3 "
                node.broken += "stride-2 convolution of 3 channels must begin"
            else:
                node.broken = f"{node.op} '{node.label}' reads an output of the model"
            continue
        other = part.nodes[producer]
        if not (other.entry or other.inside) or other.broken:
            node.broken = other.broken or other.told
            continue
        other.end = False
        if other.leader != node.leader:
            other.leader = node.leader = max(other.leader, node.leader)
            changed = True
    return changed


def _whole(part: _Part, node: _Node) -> bool:
    return not part.nodes[node.leader].broken


def _check_readers(part: _Part) -> None:
    """Whatever is read in the part's layout must be read by nobody outside of it."""
    members = [node for node in part.nodes if node.switches and _whole(part, node)]
    inside = {id(node) for node in members}
    for node in members:
        for other in part.nodes:
            if id(other) not in inside and set(other.inputs) & set(node.inputs):
                leader = part.nodes[node.leader]
                leader.broken = (
                    leader.broken or f"a value of its part is read elsewhere: {other.told}"
                )


def _zero_shares(part: _Part) -> dict[int, float]:
    """Share of zeros in the 1x1 weights of each part, by its leader."""
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


def _misread(part: _Part, node: _Node) -> str:
    readers = [other for other in part.nodes if node.output in other.inputs]
    if part.spatial[node.output] == 1:
        return (
            f"its XNNPACK would fail or answer wrong: {node.op} '{node.label}' of one pixel is the "
            "last of its part"
        )
    reader = readers[0].told if readers else "the model's output"
    return f"its XNNPACK would answer wrong: {reader}, yet what lies before it would switch"


def _nodes(
    model: Any, graph: Any, weights: Mapping[int, Constant], runtime: SparsePath
) -> list[_Node]:
    """Operators in order; explicit paddings are part of the convolution that reads them."""
    tensors = graph.tensors
    static = {t for t, tensor in enumerate(tensors) if _is_static(model, tensor)}
    operators = list(enumerate(graph.operators or ()))
    for _, operator in operators:
        if operator_name(model, operator) in _STATIC and indices(operator.inputs)[0] in static:
            static.update(indices(operator.outputs))
    read = [t for _, o in operators for t in indices(o.inputs)] + indices(graph.outputs)
    pads: dict[int, tuple[int, list[int]]] = {}
    found: dict[int, _Node] = {}
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
        node = _Node(number, name, _label(tensors[outputs[0]]), dynamic, outputs[0])
        shapes = [indices(tensors[t].shape) for t in inputs if t >= 0]
        dtypes = [_dtype(tensors[t]) for t in (*dynamic, outputs[0])]
        weight = weights.get(number)
        if weight is not None:
            dtypes.append(weight.values.dtype.name)
            one = name == "CONV_2D" and weight.values.shape[1:3] == (1, 1)
            node.pointwise = one or (name == "FULLY_CONNECTED" and runtime.fully_connected)
        other = next((dtype for dtype in dtypes if dtype not in _PLAIN), None)
        if other is not None:
            node.why = f"works with {other}, and the sparse path with floats only"
        elif name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            explicit = None
            options = operator.builtinOptions
            if inputs[0] in pads and options.padding != _SAME:
                node.inputs[0], explicit = pads[inputs[0]]
                del found[inputs[0]]
            judge = _convolution if name == "CONV_2D" else _depthwise
            judge(node, options, weight, shapes, explicit)
        else:
            _other(node, shapes, static, inputs, runtime, weight is not None)
        found[node.output] = node
    return list(found.values())


def _convolution(
    node: _Node, options: Any, weight: Constant | None, shapes: list[list[int]], explicit: Any
) -> None:
    if weight is None:
        node.why = "has no constant weights"
        return
    _, height, width, channels = weight.values.shape
    stride = (options.strideH, options.strideW)
    if channels != shapes[0][3]:
        node.why = "has groups"
    elif (options.dilationHFactor, options.dilationWFactor) != (1, 1):
        node.why = "is dilated"
    elif node.pointwise:
        if stride != (1, 1):
            node.why = f"has stride {stride[0]}, and a 1x1 convolution must have stride 1"
        elif explicit is not None and any(explicit):
            node.why = "is padded, and a 1x1 convolution must not be"
        else:
            node.inside = True
    elif (height, width) != (3, 3):
        node.why = f"is {height}x{width}: only 1x1, and 3x3 for the first, are sparse"
    elif stride != (2, 2):
        node.why = "is 3x3 with stride 1: a 3x3 convolution can only begin, with stride 2"
    elif channels != 3:
        node.why = f"begins with {channels} channels, and 3 are needed"
    elif explicit != [1, 1, 1, 1]:
        node.why = _padding_told(options, 1)
    else:
        node.entry = True


def _depthwise(
    node: _Node, options: Any, weight: Constant | None, shapes: list[list[int]], explicit: Any
) -> None:
    if weight is None:
        node.why = "has no constant weights"
        return
    _, height, width, channels = weight.values.shape
    stride = (options.strideH, options.strideW)
    needed = height // 2
    if (options.dilationHFactor, options.dilationWFactor) != (1, 1):
        node.why = "is dilated"
    elif channels != shapes[0][3]:
        node.why = f"has a depth multiplier of {channels // max(1, shapes[0][3])}, not 1"
    elif stride not in ((1, 1), (2, 2)):
        node.why = f"has stride {stride[0]}x{stride[1]}: only 1 and 2 are sparse"
    elif (height, width) not in ((3, 3), (5, 5)):
        node.why = f"is {height}x{width}: only 3x3 and 5x5 are sparse"
    elif options.padding == _SAME and stride == (1, 1):
        node.inside = True
    elif explicit != [needed] * 4:
        node.why = _padding_told(options, needed)
    else:
        node.inside = True


def _padding_told(options: Any, needed: int) -> str:
    if options.padding == _SAME:
        return (
            f"has stride {options.strideH} with TensorFlow's 'same' padding, and the sparse path "
            f"needs symmetric padding: ZeroPadding2D({needed}) and 'valid'"
        )
    return f"is not padded by {needed} on each side"


def _other(
    node: _Node,
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
            node.why = "takes something that has not 4 dimensions"
        elif any(
            t in static and sum(d > 1 for d in s) > 1 for t, s in zip(inputs, shapes, strict=True)
        ):
            node.why = "takes a constant that is neither a number nor a vector"
        else:
            node.inside = True
    elif node.op == "RESIZE_BILINEAR":
        node.inside = shapes[0][1] > 1 and shapes[0][2] > 1
        node.why = "enlarges a single row or column"
    elif node.op in (*_UNARY, *runtime.unary) and rank == 4:
        node.inside = True
    elif node.op in runtime.apart:
        node.why = "is not handed to XNNPACK by this runtime"
    else:
        node.why = "does not exist on the sparse path"


def _is_static(model: Any, tensor: Any) -> bool:
    buffer = model.buffers[tensor.buffer]
    return buffer.offset > 1 or (buffer.data is not None and len(buffer.data) > 0)


def _paddings(model: Any, tensor: Any) -> list[int] | None:
    """Above, below, left and right; None where others are padded too or they are not known."""
    data = model.buffers[tensor.buffer].data
    if data is None or tensor.type != schema.TensorType.INT32 or len(data) != 32:
        return None
    amounts = np.frombuffer(memoryview(data), np.int32)
    if amounts[[0, 1, 6, 7]].any():
        return None
    return [int(amount) for amount in amounts[2:6]]


def _dtype(tensor: Any) -> str:
    return np.dtype(dtype_of(tensor) or np.void).name


def _pixels(tensor: Any) -> int:
    shape = indices(tensor.shape)
    return shape[1] * shape[2] if len(shape) == 4 else 1


def _label(tensor: Any) -> str:
    return label((tensor.name or b"").decode("utf-8", "replace"))
