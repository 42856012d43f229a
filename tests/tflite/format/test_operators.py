"""Operators of a file, in order."""

from edgesparse.tflite.format.inspect import inspect
from edgesparse.tflite.format.operators import read_operators


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
