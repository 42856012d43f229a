import numpy as np
import pytest

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.encode import serialize
from edgesparse.tflite.format.flatbuffer import constants, open_model
from edgesparse.tflite.format.signature import read_signature
from edgesparse.tflite.post_training.calibration_samples import outputs_of
from edgesparse.tflite.post_training.normalize import normalize
from tests.tools.old_file import WIDTHS, old_file


def test_an_old_file_gets_codes_f32_weights_names_and_a_signature_and_answers_as_before():
    content = old_file()
    changed = normalize(content)
    model = open_model(changed, "m")
    assert [code.builtinCode for code in model.operatorCodes] == [9]  # FULLY_CONNECTED
    assert read_signature(changed).operators == {"FULLY_CONNECTED": 3}
    weights = list(constants(model, changed))
    assert {constant.values.dtype.name for constant in weights} == {"float32"}
    parameters = sum(constant.values.nbytes for constant in weights)
    # The weights in half precision are not left behind.
    assert parameters < len(changed) < parameters + 4000
    names = [bytes(tensor.name) for tensor in model.subgraphs[0].tensors]
    assert len(set(names)) == len(names)
    (signature,) = model.signatureDefs
    ends = [bytes(end.name) for end in (*signature.inputs, *signature.outputs)]
    assert ends == [b"x", b"y"]
    x = {"x": np.random.default_rng(1).normal(size=(8, WIDTHS[0])).astype(np.float32)}
    (before,), (after,) = (outputs_of(each, x) for each in (content, changed))
    np.testing.assert_array_equal(before, after)
    # A second time changes nothing.
    assert normalize(changed) == changed


def test_what_another_operator_or_the_user_reads_keeps_its_activation_apart():
    model = open_model(old_file(), "m")
    graph = model.subgraphs[0]
    relu = next(operator for operator in graph.operators if operator.opcodeIndex == 2)
    graph.outputs = [*graph.outputs, relu.inputs[0]]
    content = serialize(model, aligned=True)
    changed = normalize(content)
    assert read_signature(changed).operators == {"FULLY_CONNECTED": 3, "RELU": 1}
    x = {"x": np.random.default_rng(1).normal(size=(8, WIDTHS[0])).astype(np.float32)}
    for before, after in zip(outputs_of(content, x), outputs_of(changed, x), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_damaged_file_is_refused():
    with pytest.raises(UsageError, match="truncated or damaged"):
        normalize(old_file()[:2000])
