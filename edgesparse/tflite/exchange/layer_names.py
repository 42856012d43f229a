"""Names of a converted file's layers: litert-torch calls every one by its own wrapper's class."""

from __future__ import annotations

from collections import Counter

from edgesparse.tflite.format.encode import serialize
from edgesparse.tflite.format.flatbuffer import open_model, operator_name


def name_layers(content: bytes) -> bytes:
    """Name each constant and each output of an operator by the operator's kind and number."""
    model = open_model(content, "the converted file")
    if any(buffer.offset > 1 for buffer in model.buffers):
        return content  # Weights of over 2 GB lie behind the flatbuffer, which cannot grow.
    for graph in model.subgraphs:
        counts: Counter[str] = Counter()
        ends = {*graph.inputs, *graph.outputs}
        for operator in graph.operators:
            kind = operator_name(model, operator).lower()
            counts[kind] += 1
            name = f"{kind}_{counts[kind]}"
            for number, tensor in enumerate(operator.outputs):
                if tensor not in ends:
                    graph.tensors[tensor].name = f"{name}/output_{number}".encode()
            for number, tensor in enumerate(operator.inputs):
                if tensor >= 0 and model.buffers[graph.tensors[tensor].buffer].data is not None:
                    graph.tensors[tensor].name = f"{name}/input_{number}".encode()
    return serialize(model, aligned=True)
