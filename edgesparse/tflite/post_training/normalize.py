"""Files of older converters in the form that today's converter writes, which tools expect.

Public .tflite files, such as MediaPipe's, are years old: operator codes are in the deprecated field
alone, weights are in half precision behind DEQUANTIZE, activations are operators of their own, and
no signature is defined. ai-edge-quantizer takes every operator of such a file for ADD, sees no
weights, or fails.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.tflite.format.encode import add_buffer, serialize
from edgesparse.tflite.format.flatbuffer import (
    compact,
    damaged,
    indices,
    open_model,
    operator_name,
)

_FUSING = (
    "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL", "DIV",
    "AVERAGE_POOL_2D", "MAX_POOL_2D",
)  # fmt: skip
_ACTIVATIONS = {
    name: getattr(schema.ActivationFunctionType, name) for name in ("RELU", "RELU6", "RELU_N1_TO_1")
}
_KEY = "serving_default"
"""The converter's name of a signature."""


def normalize(content: bytes, name: str = "model.tflite") -> bytes:
    """Rewrite a densely stored file with operator codes in their field, weights as f32 without
    DEQUANTIZE, activations within the operators before them, named tensors, and a signature; its
    outputs stay the same.

    Raises:
        UsageError: the file is damaged.
    """
    model = open_model(content, name)
    with damaged(name):
        for code in model.operatorCodes:
            code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
        for graph in model.subgraphs:
            graph.operators = [o for o in graph.operators or () if not _fold(model, graph, o)]
            _fuse_activations(model, graph)
            _name_tensors(graph)
        if not model.signatureDefs:
            model.signatureDefs = [_signature(model.subgraphs[0])]
        compact(model)
        return serialize(model, aligned=True)


def _fold(model: Any, graph: Any, operator: Any) -> bool:
    """Store the output of a DEQUANTIZE whose input is constant f16; False for other operators."""
    if operator_name(model, operator) != "DEQUANTIZE":
        return False
    (source,), (target,) = indices(operator.inputs), indices(operator.outputs)
    data = model.buffers[graph.tensors[source].buffer].data
    if graph.tensors[source].type != schema.TensorType.FLOAT16 or data is None or not len(data):
        return False
    values = np.frombuffer(memoryview(data), np.float16).astype(np.float32)
    graph.tensors[target].buffer = add_buffer(model, values)
    return True


def _fuse_activations(model: Any, graph: Any) -> None:
    """Let operators apply the activation behind them, which XNNPACK does not run in int8."""
    readers = Counter(index for operator in graph.operators for index in indices(operator.inputs))
    readers.update(indices(graph.outputs))
    producers: dict[int, Any] = {}
    left = []
    for operator in graph.operators:
        activation = _ACTIVATIONS.get(operator_name(model, operator))
        source = next(iter(indices(operator.inputs)), -1)
        plain = activation and readers[source] == 1 and _is_linear(model, producers.get(source))
        if plain and graph.tensors[source].type == schema.TensorType.FLOAT32:
            producers[source].builtinOptions.fusedActivationFunction = activation
            producers[source].outputs = operator.outputs
            operator = producers[source]
        else:
            left.append(operator)
        producers |= dict.fromkeys(indices(operator.outputs), operator)
    graph.operators = left


def _is_linear(model: Any, operator: Any) -> bool:
    """Return whether an operator can apply an activation to its output, and does not."""
    if operator is None or operator_name(model, operator) not in _FUSING:
        return False
    none = schema.ActivationFunctionType.NONE
    return getattr(operator.builtinOptions, "fusedActivationFunction", None) == none


def _name_tensors(graph: Any) -> None:
    """Give tensors without a name, or with that of another, one by their index: the quantizer knows
    tensors by name."""
    # Inputs and outputs first: programs know these names.
    ends = dict.fromkeys([*indices(graph.inputs), *indices(graph.outputs)])
    names: set[bytes] = set()
    for index in dict.fromkeys([*ends, *range(len(graph.tensors))]):
        tensor = graph.tensors[index]
        name = bytes(tensor.name or b"")
        if not name or name in names:
            name = name + f"#{index}".encode()
            tensor.name = name
        names.add(name)


def _signature(graph: Any) -> Any:
    inputs, outputs = (
        [schema.TensorMapT(name=graph.tensors[i].name or b"", tensorIndex=i) for i in indices(ends)]
        for ends in (graph.inputs, graph.outputs)
    )
    return schema.SignatureDefT(inputs=inputs, outputs=outputs, signatureKey=_KEY, subgraphIndex=0)
