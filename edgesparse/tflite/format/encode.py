"""Rewrites .tflite files: chosen weights in TFLite's sparse format, everything else unchanged.

The file is read and written through the schema of ai-edge-litert. Encoding is lossless: decoding
returns the same bits, and an operator without a sparse kernel gets its weights through DENSIFY.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.flatbuffer import (
    Constant,
    compact,
    constants,
    damaged,
    dtype_of,
    indices,
    open_model,
    operator_name,
    read_sparse,
)
from edgesparse.tflite.format.sparse_layout import Compressed, Dense, Layout, decompress

SPARSE_KERNEL_VERSION = 8
"""The first version of FULLY_CONNECTED that supports sparse weights."""
_DENSIFY_VERSION = 1
_ALIGNMENT = 16
_VECTORS = {
    1: (schema.SparseIndexVector.Uint8Vector, schema.Uint8VectorT),
    2: (schema.SparseIndexVector.Uint16Vector, schema.Uint16VectorT),
    4: (schema.SparseIndexVector.Int32Vector, schema.Int32VectorT),
}


@dataclass(frozen=True)
class Encoding:
    """Storage of a tensor. `densify`: a DENSIFY operator before its reader makes it dense."""

    layout: Layout
    densify: bool


Choose = Callable[[Constant], Encoding | None]
"""Chooses the storage of a weight; None leaves it dense."""


def encode(content: bytes, choose: Choose, name: str = "model.tflite") -> bytes:
    """Store each weight as `choose` returns; sparse weights are decoded first.

    Raises:
        UsageError: the file is damaged, or has weights outside of the flatbuffer.
    """
    return rewrite(content, lambda model, _: choose, name)


def rewrite(
    content: bytes,
    chooser: Callable[[Any, Sequence[Constant]], Choose],
    name: str = "model.tflite",
) -> bytes:
    """Store weights by a choice that depends on the whole model; see `encode`.

    Args:
        chooser: returns the choice, for the densely stored model and its constants.
    """
    model = open_model(content, name)
    with damaged(name):
        _refuse_external(model, name)
        # Unchanged: alignment adds bytes, and an unaligned file ran without it.
        aligned = _is_aligned(model, content)
        # From the dense form: a file can be encoded for several runtimes in turn.
        _decode(model)
        all_constants = list(constants(model))
        choose = chooser(model, all_constants)
    stored: dict[tuple[int, Layout], tuple[int, Compressed]] = {}
    for constant in all_constants:
        encoding = choose(constant)
        if encoding is not None:
            # Tensors that share a buffer still share one.
            key = (constant.buffer, encoding.layout)
            if key not in stored:
                compressed = Dense(constant.values).compress(encoding.layout)
                stored[key] = add_buffer(model, compressed.values), compressed
            _store(model, constant, *stored[key], densify=encoding.densify)
    with damaged(name):
        compact(model)
        return serialize(model, aligned=aligned)


def decode(content: bytes, name: str = "model.tflite") -> bytes:
    """Store every weight dense."""
    return encode(content, lambda constant: None, name)


def _refuse_external(model: Any, name: str) -> None:
    outside = any(buffer.offset > 1 for buffer in model.buffers or ())
    for graph in model.subgraphs:
        outside |= any(operator.largeCustomOptionsOffset > 1 for operator in graph.operators or ())
    if outside:
        raise UsageError(
            f"{name} has weights after the flatbuffer, as models over 2 GB do; "
            "their storage cannot be changed"
        )


def _decode(model: Any) -> None:
    """Make every sparse tensor dense and remove the DENSIFY operators."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.sparsity is None:
                continue
            dtype = dtype_of(tensor)
            if dtype is None:
                raise ValueError(f"a sparse tensor of type {tensor.type}")
            values = decompress(read_sparse(tensor, model.buffers[tensor.buffer].data, dtype))
            tensor.buffer = add_buffer(model, values)
            tensor.sparsity = None
        direct: dict[int, int] = {}
        operators = []
        for operator in graph.operators or ():
            source = next(iter(indices(operator.inputs)), -1)
            if operator_name(model, operator) == "DENSIFY" and _is_constant(model, graph, source):
                target = indices(operator.outputs)[0]
                direct[target] = source
                if graph.tensors[target].quantization is not None:
                    graph.tensors[source].quantization = graph.tensors[target].quantization
            else:
                operators.append(operator)
        graph.operators = operators
        for operator in operators:
            operator.inputs = [direct.get(i, i) for i in indices(operator.inputs)]
        graph.outputs = [direct.get(i, i) for i in indices(graph.outputs)]


def _is_constant(model: Any, graph: Any, tensor: int) -> bool:
    if tensor < 0:
        return False
    data = model.buffers[graph.tensors[tensor].buffer].data
    return data is not None and len(data) > 0


def _store(
    model: Any, constant: Constant, buffer: int, stored: Compressed, *, densify: bool
) -> None:
    graph = model.subgraphs[constant.graph]
    tensor = graph.tensors[constant.tensor]
    if densify:
        dense = schema.TensorT(
            shape=tensor.shape,
            type=tensor.type,
            quantization=tensor.quantization,
            hasRank=tensor.hasRank,
        )
        # Scales are needed by the operator only, and DENSIFY writes zeros as 0.
        tensor.quantization = None
        graph.tensors.append(dense)
        _insert_densify(model, graph, constant.tensor, len(graph.tensors) - 1)
    else:
        _require_version(model, graph, constant)
    tensor.buffer = buffer
    tensor.sparsity = _parameters(stored)


def _insert_densify(model: Any, graph: Any, source: int, target: int) -> None:
    """Insert DENSIFY before the first reader of a tensor; all of its readers read the dense one."""
    first = None
    for position, operator in enumerate(graph.operators):
        inputs = indices(operator.inputs)
        if source in inputs:
            first = position if first is None else first
            operator.inputs = [target if i == source else i for i in inputs]
    graph.outputs = [target if i == source else i for i in indices(graph.outputs)]
    code = operator_code(model, "DENSIFY", _DENSIFY_VERSION)
    densify = schema.OperatorT(
        opcodeIndex=code,
        inputs=[source],
        outputs=[target],
        builtinOptionsType=schema.BuiltinOptions.DensifyOptions,
        builtinOptions=schema.DensifyOptionsT(),
    )
    graph.operators.insert(first or 0, densify)


def _require_version(model: Any, graph: Any, constant: Constant) -> None:
    for operator in graph.operators:
        if constant.tensor in indices(operator.inputs):
            version = max(SPARSE_KERNEL_VERSION, model.operatorCodes[operator.opcodeIndex].version)
            # With a higher version XNNPACK reads sparse float weights as dense ones, and returns
            # NaN. In mixed models the converter gives all operators the highest version.
            if constant.values.dtype == np.float32:
                version = SPARSE_KERNEL_VERSION
            operator.opcodeIndex = operator_code(model, operator_name(model, operator), version)


def operator_code(model: Any, name: str, version: int) -> int:
    """Return the index of an operator code with a version, added where it is missing."""
    number = getattr(schema.BuiltinOperator, name)
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number and code.version == version:
            return index
    deprecated = min(number, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    code = schema.OperatorCodeT(
        deprecatedBuiltinCode=deprecated, builtinCode=number, version=version
    )
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def add_buffer(model: Any, values: np.ndarray) -> int:
    """Add a buffer; returns its index."""
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    model.buffers.append(schema.BufferT(data=data))
    return len(model.buffers) - 1


def _parameters(stored: Compressed) -> Any:
    levels = []
    for level in stored.levels:
        metadata = schema.DimensionMetadataT(
            format=schema.DimensionType.DENSE, denseSize=level.size
        )
        if level.segments is not None and level.indices is not None:
            metadata.format, metadata.denseSize = schema.DimensionType.SPARSE_CSR, 0
            kind, vector = _VECTORS[level.segments.itemsize]
            metadata.arraySegmentsType, metadata.arraySegments = kind, vector(level.segments)
            kind, vector = _VECTORS[level.indices.itemsize]
            metadata.arrayIndicesType, metadata.arrayIndices = kind, vector(level.indices)
        levels.append(metadata)
    return schema.SparsityParametersT(
        traversalOrder=list(stored.order),
        blockMap=list(stored.block_map) or None,
        dimMetadata=levels,
    )


def _is_aligned(model: Any, content: bytes) -> bool:
    """Return whether all buffers are aligned as in the schema; the converter's often are not."""
    base = np.frombuffer(content, np.uint8).ctypes.data
    addresses = [b.data.ctypes.data for b in model.buffers if b.data is not None and len(b.data)]
    return all((address - base) % _ALIGNMENT == 0 for address in addresses)


class _AlignedBuffer(schema.BufferT):
    """A buffer that is aligned as the schema requires, which its Python writer ignores."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802 (the schema's name)
        if self.data is not None:
            builder.Prep(_ALIGNMENT, len(self.data))
        return super().Pack(builder)


def serialize(model: Any, *, aligned: bool) -> bytes:
    """Serialize a ModelT; `aligned` aligns its buffers as in the schema."""
    if aligned:
        model.buffers = [_AlignedBuffer(b.data, b.offset, b.size) for b in model.buffers]
    # Large enough from the start: growing copies everything.
    size = sum(len(b.data) + 2 * _ALIGNMENT for b in model.buffers if b.data is not None)
    for graph in model.subgraphs:
        size += sum(_sparsity_bytes(tensor) + 1024 for tensor in graph.tensors)
    builder = flatbuffers.Builder(size + 65_536)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _sparsity_bytes(tensor: Any) -> int:
    if tensor.sparsity is None:
        return 0
    total = 0
    for level in tensor.sparsity.dimMetadata:
        for vector in (level.arraySegments, level.arrayIndices):
            total += vector.values.nbytes if vector is not None else 0
    return total
