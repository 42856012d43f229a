"""Writes a .tflite file as converters did years ago: operator codes in the deprecated field alone,
weights in half precision behind DEQUANTIZE, activations as operators, no signature, tensors that
share a name or lack one."""

from itertools import pairwise

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.tflite.format.encode import add_buffer, serialize

WIDTHS = (16, 48, 48, 4)


def old_file(*, open_length=False):
    """The bytes of a network of fully connected layers from x [1, 16] to y [1, 4]; of
    `open_length`: from [1, any, 16] to [1, any, 4]."""
    rng, graph = np.random.default_rng(0), schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    names = ("DEQUANTIZE", "FULLY_CONNECTED", "RELU")
    codes = [
        schema.OperatorCodeT(getattr(schema.BuiltinOperator, name), None, 1, 0) for name in names
    ]
    buffers = [schema.BufferT()]
    model = schema.ModelT(version=3, operatorCodes=codes, subgraphs=[graph], buffers=buffers)

    def tensor(shape, kind=schema.TensorType.FLOAT32, name=None, buffer=0):
        graph.tensors.append(schema.TensorT(list(shape), kind, buffer, name))
        return len(graph.tensors) - 1

    def half(values):
        """A weight behind DEQUANTIZE."""
        buffer = add_buffer(model, values.astype(np.float16))
        stored = tensor(values.shape, schema.TensorType.FLOAT16, "weight", buffer)
        read = tensor(values.shape)
        options = schema.DequantizeOptionsT()
        kind = schema.BuiltinOptions.DequantizeOptions
        graph.operators.append(schema.OperatorT(0, [stored], [read], kind, options))
        return read

    lengths = (1, 1) if open_length else (1,)
    x = tensor((*lengths, WIDTHS[0]), name="x")
    graph.inputs = [x]
    if open_length:
        graph.tensors[x].shapeSignature = [1, -1, WIDTHS[0]]
    for inputs, outputs in pairwise(WIDTHS):
        weights = half(rng.normal(size=(outputs, inputs)) / np.sqrt(inputs))
        bias = half(rng.normal(size=outputs))
        y = tensor((*lengths, outputs), name="y" if outputs == WIDTHS[-1] else None)
        options = schema.FullyConnectedOptionsT(keepNumDims=open_length)
        kind = schema.BuiltinOptions.FullyConnectedOptions
        graph.operators.append(schema.OperatorT(1, [x, weights, bias], [y], kind, options))
        x = y
        if outputs != WIDTHS[-1]:
            x = tensor((*lengths, outputs))
            graph.operators.append(schema.OperatorT(2, [y], [x]))
    graph.outputs = [x]
    return serialize(model, aligned=True)
