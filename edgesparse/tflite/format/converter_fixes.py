"""Corrections of errors in the converter's files (TensorFlow 2.21)."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgesparse.tflite.format.encode import add_buffer, serialize
from edgesparse.tflite.format.flatbuffer import (
    constants,
    dtype_of,
    indices,
    open_model,
    operator_name,
)

_OUTPUT_STATE = 18
"""Index of the LSTM's input with its last output."""
_HIDDEN = 4
"""Index of the LSTM's intermediate with the quantization of its output."""


def fix_converter_output(content: bytes) -> bytes:
    """Correct all known errors of the converter in a file."""
    return fix_lstm_states(normalize_zeros(content))


def normalize_zeros(content: bytes) -> bytes:
    """Replace each -0.0 among the weights by 0.0.

    Masks and folded batch normalizations produce them; the numbers are equal, their bytes are not.
    """
    changed = bytearray(content)
    model = open_model(changed, "model.tflite")
    for constant in constants(model):
        if constant.values.dtype.kind == "f":
            values = constant.values
            values[values == 0] = 0
    return bytes(changed)


def fix_lstm_states(content: bytes) -> bytes:
    """Give the state of each integer LSTM the scale of its output.

    The kernel writes its output with the state's scale. Where another operator requires a common
    scale, as CONCATENATION does for a Bidirectional layer, the converter changes that of the output
    alone, and the outputs are wrong.
    """
    model = open_model(content, "model.tflite")
    changed = False
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            if operator_name(model, operator) == "UNIDIRECTIONAL_SEQUENCE_LSTM":
                changed = _copy_output_scale(model, graph, operator) or changed
    return serialize(model, aligned=False) if changed else content


def _copy_output_scale(model: Any, graph: Any, operator: Any) -> bool:
    """Copy an LSTM's output scale to its state; return whether they differed."""
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
        # It begins at zero, which is another integer now. Other tensors can share the buffer.
        dtype, shape = dtype_of(state), tuple(indices(state.shape))
        state.buffer = add_buffer(model, np.full(shape, target[1], dtype))
    return True


def _scaled(tensor: Any) -> bool:
    quantization = tensor.quantization
    return (
        quantization is not None and quantization.scale is not None and len(quantization.scale) == 1
    )
