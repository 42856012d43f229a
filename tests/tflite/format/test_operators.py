"""Operators of a file, in order."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgesparse.tflite.format.inspect import inspect
from edgesparse.tflite.format.operators import read_operators, single_files


def test_operators_stand_in_order_with_their_weights(tflite_files):
    for name, path in tflite_files.items():
        content = path.read_bytes()
        operators, whole = read_operators(content, path.name), inspect(content)
        weighted = [operator for operator in operators if operator.weights]
        assert [operator.name for operator in weighted] == ["wide", "classifier"]
        assert [operator.operator for operator in weighted] == ["FULLY_CONNECTED"] * 2
        assert operators[-1].operator in ("SOFTMAX", "DEQUANTIZE")
        assert sum(operator.zeros for operator in operators) == whole.zeros
        assert sum(operator.macs for operator in operators) == whole.macs == 512 * 522
        wide = weighted[0]
        assert wide.zeros >= 0.4 * wide.weights
        assert wide.dense_bytes == wide.weights * (1 if name == "int8" else 4)
        assert (wide.storage == "dense") == (wide.stored_bytes == wide.dense_bytes)


@pytest.mark.parametrize("name", ["dense", "sparse", "int8"])
def test_operators_alone_give_the_outputs_of_the_whole(tflite_files, samples, name):
    """In a chain, each operator's file continues with the output of the one before it."""
    content = tflite_files[name].read_bytes()
    whole, value = invoke(content, samples[:1]), samples[:1]
    files = dict(single_files(content))
    operators = read_operators(content)
    decoders = {n for n, o in enumerate(operators) if o.storage == "decoder"}
    assert bool(decoders) == (name == "sparse")
    assert files.keys() == set(range(len(operators))) - decoders
    for single in files.values():
        assert len(single) < len(content) + 500
        value = invoke(single, value)
    np.testing.assert_allclose(value, whole, atol=1e-6)


def invoke(content, value):
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = source["quantization"]
    if source["dtype"] == np.int8 and value.dtype != np.int8:
        value = np.clip(np.round(value / scale) + zero_point, -128, 127).astype(np.int8)
    interpreter.set_tensor(source["index"], value.reshape(source["shape"]))
    interpreter.invoke()
    return interpreter.get_tensor(target["index"])
