"""A .tflite file as objects of its schema: operators, constants, and how constants are stored.

The file is untrusted: any error in it is raised as a UsageError.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.sparse_layout import Compressed, Form, Level, decompress

IDENTIFIER = b"TFL3"
_MAX_ELEMENTS = 1 << 26
_ELEMENTS_PER_BYTE = 64
"""Elements per byte of a file, at most, above _MAX_ELEMENTS: a few bytes can declare gigabytes of
zeros, which reading would allocate. 64 is a sparsity of 97 % of single bytes."""
_DTYPES: dict[int, type[np.generic]] = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.FLOAT64: np.float64,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
}
_OPERATORS = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
_THROUGH = ("DENSIFY", "DEQUANTIZE")
"""Operators that pass a weight on to the reader of their output."""
_KERNEL_OPERATIONS = ("Conv2D", "depthwise", "MatMul", "separable_conv2d", "conv2d_transpose")
_WRAPPERS = ("LastValueQuant", "FakeQuant")
"""Parts of names that quantization-aware training adds."""


@dataclass(frozen=True)
class Constant:
    """A constant tensor. `values` is dense, of the tensor's shape and dtype.

    `op` reads it (through DENSIFY and DEQUANTIZE) as its input number `slot`, and
    `activation_dtype` is that of its first input. `stored` is its sparse form, None where it is
    dense; `zero_point` represents zero, None where that differs between channels; `scales` counts
    the scales of a quantized tensor.
    """

    graph: int
    tensor: int
    buffer: int
    name: str
    op: str
    operator: int
    slot: int
    values: np.ndarray
    stored: Compressed | None
    densified: bool
    zero_point: int | None
    scales: int
    activation_dtype: str

    @property
    def form(self) -> Form:
        """The form of its storage."""
        if self.stored is None:
            return "dense"
        if self.densified:
            return "densify"
        if not self.stored.block_map:
            return "random"
        return "block-1x4" if self.stored.levels[-1].size == 4 else "block-1x16"

    @property
    def label(self) -> str:
        return label(self.name)

    @property
    def zeros(self) -> int:
        """The number of elements that represent zero."""
        return self.values.size - int(np.count_nonzero(self.values != (self.zero_point or 0)))

    @property
    def stored_bytes(self) -> int:
        """Its size in the file."""
        return self.values.nbytes if self.stored is None else self.stored.bytes

    @property
    def is_weight(self) -> bool:
        """Return whether it is a matrix or filter, not a bias, a shape or an index."""
        return self.values.ndim >= 2 and self.values.dtype != np.int32


@contextmanager
def damaged(name: str) -> Iterator[None]:
    """Convert errors of reading a damaged file within the block into a UsageError."""
    try:
        yield
    except (
        struct.error,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise UsageError(f"{name} is truncated or damaged; copy it again ({error})") from None


def open_model(content: bytes | bytearray | memoryview, name: str) -> Any:
    """Read a file's ModelT. Raises UsageError where it is not a .tflite model."""
    if content[4:8] != IDENTIFIER:
        raise UsageError(f"{name} is not a .tflite model (its identifier TFL3 is missing)")
    with damaged(name):
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        if not model.subgraphs:
            raise ValueError("no subgraph")
        return model


def label(name: str) -> str:
    """Extract a Keras layer's name from a tensor's.

    Tensors are named MODEL/LAYER/OPERATION; fused operators have several names, of which the one
    with the weight's operation has the layer.
    """
    names = [n.split("/") for n in name.split(";")]
    path = next((parts for parts in names if parts[-1] in _KERNEL_OPERATIONS), names[0])
    parts = [part for part in path if not part.startswith(_WRAPPERS)] or path
    above = parts[:-1]
    while above and above[-1] in _KERNEL_OPERATIONS:
        above.pop()
    return (above or parts)[-1].removeprefix("quant_")[:60]


def operator_name(model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return _OPERATORS.get(number, str(number))


def dtype_of(tensor: Any) -> type[np.generic] | None:
    """Return NumPy's type for a tensor; None for types that it lacks."""
    return _DTYPES.get(tensor.type)


def indices(values: Any) -> list[int]:
    """Return a vector of the schema as a list; empty where it is absent."""
    return [] if values is None else [int(value) for value in values]


def constants(model: Any, content: bytes = b"") -> Iterator[Constant]:
    """Yield every constant that is read by an operator and is a parameter of the network.

    Args:
        content: the file, for weights after its flatbuffer.

    Raises:
        ValueError and others: see `damaged`.
    """
    size = len(content) or sum(len(b.data) for b in model.buffers if b.data is not None)
    limit = max(_MAX_ELEMENTS, size * _ELEMENTS_PER_BYTE)
    for g, graph in enumerate(model.subgraphs):
        readers = _readers(model, graph)
        for t, tensor in enumerate(graph.tensors or ()):
            if not 0 <= tensor.buffer < len(model.buffers):
                raise ValueError(f"tensor {t} has no buffer")
            data = _data(model.buffers[tensor.buffer], content)
            if data is not None and len(data) and t in readers:
                constant = _constant(graph, g, t, data, readers[t], limit)
                if constant is not None:
                    limit -= constant.values.size if constant.stored is not None else 0
                    yield constant


def int8_weights(content: bytes) -> list[np.ndarray]:
    """Return the int8 weights of convolutions and fully connected layers, [outputs, ..., inputs].

    Raises:
        UsageError: the file is damaged.
    """
    with damaged("model.tflite"):
        return [
            constant.values
            for constant in constants(open_model(content, "model.tflite"), content)
            if constant.op in ("CONV_2D", "FULLY_CONNECTED")
            and constant.values.dtype == np.int8
            and constant.values.ndim >= 2
        ]


def _data(buffer: Any, content: bytes) -> Any:
    if buffer.offset > 1:
        if buffer.offset + buffer.size > len(content):
            raise ValueError("a buffer is beyond the end")
        return np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
    return buffer.data


@dataclass(frozen=True)
class _Reader:
    operator: int
    name: str
    slot: int
    first_input: int
    densified: int | None = None
    """The output of the DENSIFY that reads it."""


def _readers(model: Any, graph: Any) -> dict[int, _Reader]:
    """Return the first operator that reads each tensor, through DENSIFY and DEQUANTIZE."""
    readers: dict[int, _Reader] = {}
    through: dict[int, tuple[int, str]] = {}
    for index, operator in enumerate(graph.operators or ()):
        name = operator_name(model, operator)
        inputs = indices(operator.inputs)
        for slot, tensor in enumerate(inputs):
            readers.setdefault(tensor, _Reader(index, name, slot, inputs[0]))
        if name in _THROUGH and inputs:
            through[inputs[0]] = (indices(operator.outputs)[0], name)
    for tensor in through:
        end, steps, densified = tensor, 0, None
        while end in through and steps < 3:
            end, name = through[end]
            densified = end if name == "DENSIFY" else densified
            steps += 1
        readers[tensor] = replace(readers.get(end, readers[tensor]), densified=densified)
    return readers


def _constant(
    graph: Any, g: int, t: int, data: Any, reader: _Reader, limit: int
) -> Constant | None:
    """Read a constant; `limit` bounds the elements of a sparse tensor."""
    tensor = graph.tensors[t]
    dtype = dtype_of(tensor)
    shape = tuple(indices(tensor.shape))
    if dtype is None or any(size < 0 for size in shape):
        return None
    quantization = tensor.quantization
    if reader.densified is not None and quantization is None:
        quantization = graph.tensors[reader.densified].quantization
    scales = 0
    if quantization is not None and quantization.scale is not None:
        scales = len(quantization.scale)
    if dtype is np.int32 and not scales:
        return None  # A shape, an axis or an index, not a parameter of the network.
    zero_points = set(indices(quantization.zeroPoint)) if scales else set()
    stored = None
    if tensor.sparsity is not None:
        if math.prod(shape) > limit:
            raise ValueError(f"a tensor of shape {shape} is too large for the file's size")
        stored = read_sparse(tensor, data, dtype)
        values = decompress(stored)
    else:
        values = np.frombuffer(memoryview(data), dtype)
        if len(values) != math.prod(shape):
            raise ValueError(f"{len(values)} values for shape {shape}")
        values = values.reshape(shape)
    return Constant(
        graph=g,
        tensor=t,
        buffer=tensor.buffer,
        name=(tensor.name or b"").decode("utf-8", "replace"),
        op=reader.name,
        operator=reader.operator,
        slot=reader.slot,
        values=values,
        stored=stored,
        densified=reader.densified is not None,
        zero_point=next(iter(zero_points or {0})) if len(zero_points) <= 1 else None,
        scales=scales,
        activation_dtype=np.dtype(dtype_of(graph.tensors[reader.first_input]) or np.void).name,
    )


def set_values(model: Any, constant: Constant, values: np.ndarray[Any, Any]) -> None:
    """Replace the values of a densely stored constant by others of its shape and dtype."""
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    model.buffers[constant.buffer].data = data


def read_sparse(tensor: Any, data: Any, dtype: type[np.generic]) -> Compressed:
    """Read a sparse tensor."""
    sparsity = tensor.sparsity
    levels = []
    for level in sparsity.dimMetadata or ():
        if level.format == schema.DimensionType.DENSE:
            levels.append(Level(int(level.denseSize)))
        else:
            levels.append(Level(0, _vector(level.arraySegments), _vector(level.arrayIndices)))
    return Compressed(
        shape=tuple(indices(tensor.shape)),
        order=tuple(indices(sparsity.traversalOrder)),
        block_map=tuple(indices(sparsity.blockMap)),
        levels=tuple(levels),
        values=np.frombuffer(memoryview(data), dtype),
    )


def _vector(vector: Any) -> np.ndarray:
    if vector is None or vector.values is None:
        return np.zeros(0, np.int32)
    return np.asarray(vector.values)


def compact(model: Any) -> None:
    """Remove tensors, buffers and operator codes without references."""
    for g, graph in enumerate(model.subgraphs):
        _compact_tensors(graph, [s for s in model.signatureDefs or () if s.subgraphIndex == g])
    holders = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    holders += model.metadata or ()
    others = indices(model.metadataBuffer)
    needed = {0, *others, *(holder.buffer for holder in holders)}
    new_index = _new_indices(len(model.buffers), needed)
    model.buffers = [model.buffers[old] for old in new_index]
    for holder in holders:
        holder.buffer = new_index[holder.buffer]
    if others:
        model.metadataBuffer = [new_index[old] for old in others]
    operators = [operator for graph in model.subgraphs for operator in graph.operators or ()]
    new_index = _new_indices(
        len(model.operatorCodes), {operator.opcodeIndex for operator in operators}
    )
    model.operatorCodes = [model.operatorCodes[old] for old in new_index]
    for operator in operators:
        operator.opcodeIndex = new_index[operator.opcodeIndex]


def _new_indices(count: int, needed: set[int]) -> dict[int, int]:
    """Map the old indices of needed items to new ones, in the same order."""
    remaining = [old for old in range(count) if old in needed]
    return {old: new for new, old in enumerate(remaining)}


def _compact_tensors(graph: Any, signatures: Sequence[Any]) -> None:
    operators = graph.operators or ()
    named = [m for s in signatures for m in (*(s.inputs or ()), *(s.outputs or ()))]
    used = {*indices(graph.inputs), *indices(graph.outputs), *(m.tensorIndex for m in named)}
    for operator in operators:
        for field in (operator.inputs, operator.outputs, operator.intermediates):
            used.update(indices(field))
    new_index = _new_indices(len(graph.tensors), used)
    graph.tensors = [graph.tensors[old] for old in new_index]
    new_index[-1] = -1  # An omitted input.
    graph.inputs = [new_index[old] for old in indices(graph.inputs)]
    graph.outputs = [new_index[old] for old in indices(graph.outputs)]
    for operator in operators:
        operator.inputs = [new_index[old] for old in indices(operator.inputs)]
        operator.outputs = [new_index[old] for old in indices(operator.outputs)]
        if operator.intermediates is not None:
            operator.intermediates = [new_index[old] for old in indices(operator.intermediates)]
    for entry in named:
        entry.tensorIndex = new_index[entry.tensorIndex]
