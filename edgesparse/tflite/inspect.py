"""What is in a .tflite file: its weights, their zeros, and how they are stored.

Reads the flatbuffer through the schema that ai-edge-litert ships. The file is untrusted: whatever
is wrong with it ends in one EdgesparseError.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.spec.errors import UsageError

_IDENTIFIER = b"TFL3"
_MAX_ELEMENTS = 1 << 33
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


@dataclass(frozen=True)
class WeightInfo:
    """A constant tensor. `size` counts elements in dense form, `stored_bytes` the file's."""

    name: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    zeros: int
    sparse: bool
    stored_bytes: int


@dataclass(frozen=True)
class ModelInfo:
    """A .tflite file. `zeros` and `sparsity` are over weights of two or more dimensions.

    `bytes_gzip` is what gzip makes of it at its default level, as a package or download would.
    """

    sha256: str
    bytes: int
    bytes_gzip: int
    weights: tuple[WeightInfo, ...]
    parameters: int

    @property
    def matrices(self) -> tuple[WeightInfo, ...]:
        return tuple(w for w in self.weights if len(w.shape) >= 2 and w.dtype != "int32")

    @property
    def zeros(self) -> int:
        return sum(w.zeros for w in self.matrices)

    @property
    def storage(self) -> str:
        return "sparse" if any(w.sparse for w in self.weights) else "dense"

    @property
    def sparsity(self) -> float:
        return self.zeros / max(1, sum(w.size for w in self.matrices))


def read_model(path: Path) -> bytes:
    """The bytes of a .tflite file. Raises UsageError where it is plainly none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if not content:
        raise UsageError(f"{path}: is empty, not a .tflite model")
    if content[4:8] != _IDENTIFIER:
        raise UsageError(f"{path}: is not a .tflite model (its identifier TFL3 is missing)")
    return content


def inspect(content: bytes, name: str = "model.tflite") -> ModelInfo:
    """Read every constant tensor and count its zeros.

    Raises:
        UsageError: the file is damaged.
    """
    if content[4:8] != _IDENTIFIER:
        raise UsageError(f"{name}: is not a .tflite model (its identifier TFL3 is missing)")
    try:
        weights = _weights(content)
    except (
        struct.error,
        IndexError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise UsageError(f"{name}: is truncated or damaged; copy it again ({error})") from None
    return ModelInfo(
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        bytes_gzip=len(gzip.compress(content, 6, mtime=0)),
        weights=weights,
        parameters=sum(w.size for w in weights),
    )


def _weights(content: bytes) -> tuple[WeightInfo, ...]:
    model = schema.Model.GetRootAs(content, 0)
    if model.SubgraphsLength() == 0:
        raise ValueError("no subgraph")
    found = []
    for g in range(model.SubgraphsLength()):
        graph = model.Subgraphs(g)
        users = _users(model, graph)
        for t in range(graph.TensorsLength()):
            tensor = graph.Tensors(t)
            if tensor.Buffer() >= model.BuffersLength():
                raise ValueError(f"tensor {t} has no buffer")
            data = _buffer(content, model.Buffers(tensor.Buffer()))
            if len(data) and t in users:
                info = _weight(tensor, data, users[t])
                if info is not None:
                    found.append(info)
    return tuple(found)


def _users(model: Any, graph: Any) -> dict[int, str]:
    """The op that reads each tensor; reading through DENSIFY or DEQUANTIZE counts as direct."""
    users: dict[int, str] = {}
    through: dict[int, int] = {}
    for o in range(graph.OperatorsLength()):
        op = graph.Operators(o)
        code = model.OperatorCodes(op.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = _OPERATORS.get(number, str(number))
        for i in range(op.InputsLength()):
            users.setdefault(op.Inputs(i), name)
        if name in ("DENSIFY", "DEQUANTIZE") and op.InputsLength() and op.OutputsLength():
            through[op.Inputs(0)] = op.Outputs(0)
    for tensor in through:
        end, steps = tensor, 0
        while end in through and steps < 3:
            end, steps = through[end], steps + 1
        users[tensor] = users.get(end, users[tensor])
    return users


def _buffer(content: bytes, buffer: Any) -> Any:
    if buffer.Offset() > 1:
        start, size = buffer.Offset(), buffer.Size()
        if start + size > len(content):
            raise ValueError("a buffer lies beyond the end")
        return np.frombuffer(content, np.uint8, size, start)
    if buffer.DataLength() == 0:
        return b""
    return buffer.DataAsNumpy()


def _weight(tensor: Any, data: Any, op: str) -> WeightInfo | None:
    dtype = _DTYPES.get(tensor.Type())
    shape = tuple(int(tensor.Shape(i)) for i in range(tensor.ShapeLength()))
    if dtype is None or any(size < 0 for size in shape):
        return None
    quantization = tensor.Quantization()
    quantized = quantization is not None and quantization.ScaleLength() > 0
    if dtype is np.int32 and not quantized:
        return None  # A shape, an axis or an index; no parameter of the network.
    size = math.prod(shape)
    if size > _MAX_ELEMENTS:
        raise ValueError(f"a tensor of shape {shape}")
    values = np.frombuffer(bytes(data), dtype)
    sparsity = tensor.Sparsity()
    if sparsity is None and len(values) != size:
        raise ValueError(f"{len(values)} values for shape {shape}")
    zero_point = 0
    if quantized and quantization.ZeroPointLength() == 1:
        zero_point = int(quantization.ZeroPoint(0))
    nonzeros = int(np.count_nonzero(values != zero_point))
    stored = len(data)
    if sparsity is not None:
        stored += sum(
            _index_bytes(sparsity.DimMetadata(i)) for i in range(sparsity.DimMetadataLength())
        )
    name = (tensor.Name() or b"").decode("utf-8", "replace")
    return WeightInfo(
        name, op, shape, np.dtype(dtype).name, size, size - nonzeros, sparsity is not None, stored
    )


_INDEX_BYTES = {
    schema.SparseIndexVector.Int32Vector: (schema.Int32Vector, 4),
    schema.SparseIndexVector.Uint16Vector: (schema.Uint16Vector, 2),
    schema.SparseIndexVector.Uint8Vector: (schema.Uint8Vector, 1),
}


def _index_bytes(dimension: Any) -> int:
    total = 0
    for kind, table in (
        (dimension.ArraySegmentsType(), dimension.ArraySegments()),
        (dimension.ArrayIndicesType(), dimension.ArrayIndices()),
    ):
        if table is not None and kind in _INDEX_BYTES:
            vector_type, width = _INDEX_BYTES[kind]
            vector = vector_type()
            vector.Init(table.Bytes, table.Pos)
            total += vector.ValuesLength() * width
    return total
