"""Weights in half precision, which a float file reads through DEQUANTIZE operators."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.tflite.format.encode import add_buffer, operator_code, serialize
from edgesparse.tflite.format.flatbuffer import Constant, compact, constants, open_model

_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
_TABLE = 1024
"""Elements from which a constant of another operator is stored in half precision."""
_VERSION = 3
"""The first version of DEQUANTIZE that reads f16."""
_LARGEST = float(np.finfo(np.float16).max)


def halve_weights(content: bytes) -> bytes:
    """Store the f32 weights and biases of a normalized file as f16.

    XNNPACK runs such a layer only where its bias is f16, too: ai-edge-quantizer's files, whose
    biases are f32, took up to three times the float file's time.
    """
    model = open_model(content, "model.tflite")
    added: dict[int, list[Any]] = {}
    for constant in list(constants(model, content)):
        if _is_stored_half(constant):
            graph = model.subgraphs[constant.graph]
            added.setdefault(constant.graph, []).append(_store(model, graph, constant))
    for number, operators in added.items():
        graph = model.subgraphs[number]
        graph.operators = [*operators, *graph.operators]
    compact(model)
    return serialize(model, aligned=True)


def _is_stored_half(constant: Constant) -> bool:
    values = constant.values
    if values.dtype != np.float32 or not values.size or np.abs(values).max() > _LARGEST:
        return False
    return constant.op in _LAYERS or (constant.is_weight and values.size >= _TABLE)


def _store(model: Any, graph: Any, constant: Constant) -> Any:
    """Store a constant as f16; return the operator that writes its tensor from then on."""
    tensor = graph.tensors[constant.tensor]
    half = schema.TensorT(
        shape=tensor.shape,
        type=schema.TensorType.FLOAT16,
        buffer=add_buffer(model, constant.values.astype(np.float16)),
        name=f"{constant.name}/f16",
    )
    graph.tensors.append(half)
    tensor.buffer = 0
    return schema.OperatorT(
        opcodeIndex=operator_code(model, "DEQUANTIZE", _VERSION),
        inputs=[len(graph.tensors) - 1],
        outputs=[constant.tensor],
        builtinOptionsType=schema.BuiltinOptions.DequantizeOptions,
        builtinOptions=schema.DequantizeOptionsT(),
    )
