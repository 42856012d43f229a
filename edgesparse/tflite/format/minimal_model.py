"""A minimal model, to test whether a runtime works."""

from __future__ import annotations

import flatbuffers
from ai_edge_litert import schema_py_generated as schema


def tiny_model() -> bytes:
    """Return a .tflite file that adds its input, float32 [1, 4], to itself."""
    tensors = []
    for name in (b"input", b"output"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, [1, 4], schema.TensorType.FLOAT32
        tensors.append(tensor)
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0, 0], [1]
    operator.builtinOptionsType = schema.BuiltinOptions.AddOptions
    operator.builtinOptions = schema.AddOptionsT()
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, [0], [1], [operator]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    code.version = 1
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
