"""What the converter gets wrong (TensorFlow 2.21), put right in the file it wrote."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgesparse.tflite.format.encode import add_buffer, packed
from edgesparse.tflite.format.graph import constants, dtype_of, indices, open_model, operator_name

_OUTPUT_STATE = 18
"""Which input of an LSTM holds its last output."""
_HIDDEN = 4
"""Which intermediate of an LSTM says how its output is stored."""


def mended(content: bytes) -> bytes:
    """The same model, right where the converter's is known to be wrong."""
    return lstm_states(positive_zeros(content))


def positive_zeros(content: bytes) -> bytes:
    """The same model with 0.0 for each -0.0 among its weights.

    Masks and folded batch normalizations make them; they are equal numbers, but other bytes.
    """
    changed = bytearray(content)
    model = open_model(changed, "model.tflite")
    for constant in constants(model):
        if constant.values.dtype.kind == "f":
            values = constant.values
            values[values == 0] = 0
    return bytes(changed)


def lstm_states(content: bytes) -> bytes:
    """The same model with each integer LSTM's state on the scale of its output.

    The kernel writes its output with the state's scale. Where another operator asks for a common
    scale, as CONCATENATION does of the two directions of a Bidirectional layer, the converter gives
    it to the output alone, and the file answers wrong.
    """
    model = open_model(content, "model.tflite")
    found = False
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            if operator_name(model, operator) == "UNIDIRECTIONAL_SEQUENCE_LSTM":
                found = _state_like_output(model, graph, operator) or found
    return packed(model, aligned=False) if found else content


def _state_like_output(model: Any, graph: Any, operator: Any) -> bool:
    """Whether something was to be done."""
    output = graph.tensors[indices(operator.outputs)[0]]
    state = graph.tensors[indices(operator.inputs)[_OUTPUT_STATE]]
    hidden = indices(operator.intermediates)
    if not _scaled(output) or not _scaled(state) or len(hidden) <= _HIDDEN:
        return False
    target = (float(output.quantization.scale[0]), int(output.quantization.zeroPoint[0]))
    if target == (float(state.quantization.scale[0]), int(state.quantization.zeroPoint[0])):
        return False
    for tensor in (state, graph.tensors[hidden[_HIDDEN]]):
        tensor.quantization.scale = np.array([target[0]], np.float32)
        tensor.quantization.zeroPoint = np.array([target[1]], np.int64)
    if model.buffers[state.buffer].data is not None:
        # It begins at zero, which is another integer now. Others may share the buffer.
        dtype, shape = dtype_of(state), tuple(indices(state.shape))
        state.buffer = add_buffer(model, np.full(shape, target[1], dtype))
    return True


def _scaled(tensor: Any) -> bool:
    found = tensor.quantization
    return found is not None and found.scale is not None and len(found.scale) == 1
