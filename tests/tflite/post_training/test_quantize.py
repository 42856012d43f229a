"""Files of others in other number formats."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.flatbuffer import constants, open_model
from edgesparse.tflite.format.signature import read_signature
from edgesparse.tflite.post_training import quantize
from edgesparse.tflite.post_training.calibration_samples import outputs_of, with_sample_shapes
from edgesparse.tflite.post_training.pruning import reconstruct
from edgesparse.tflite.post_training.quantize import DENSE_SCHEMES, quantize_file
from tests.tools.old_file import WIDTHS, old_file

pytestmark = [
    pytest.mark.slow,  # Each scheme is a process.
    pytest.mark.skipif(not quantize.is_available(), reason="no ai-edge-quantizer"),
]


@pytest.mark.parametrize("scheme", DENSE_SCHEMES)
def test_a_file_of_an_old_converter(scheme, tmp_path):
    source, target = tmp_path / "old.tflite", tmp_path / "new.tflite"
    source.write_bytes(old_file())
    x = np.random.default_rng(0).normal(size=(300, WIDTHS[0])).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    (loss,) = quantize_file(source, tmp_path / "x.npy", scheme, target, 300)
    assert loss.loss < 0.02
    content = target.read_bytes()
    weights = [c for c in constants(open_model(content, "new"), content) if c.is_weight]
    stored = "float16" if scheme == "f16" else "int8"
    assert {constant.values.dtype.name for constant in weights} == {stored}
    ends = read_signature(content)
    assert [(end.name, end.dtype) for end in (*ends.inputs, *ends.outputs)] == [
        ("x", "float32"),
        ("y", "float32"),
    ]
    # XNNPACK takes all of it, so that it is as fast as it can be.
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    names = [operator["op_name"] for operator in interpreter._get_ops_details()]
    assert names.count("DELEGATE") == 1


def test_open_lengths_are_those_of_the_samples(tmp_path):
    source, target, zeros = (tmp_path / f"{name}.tflite" for name in ("old", "new", "zeros"))
    source.write_bytes(old_file(open_length=True))
    x = np.random.default_rng(0).normal(size=(60, 5, WIDTHS[0])).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    (loss,) = quantize_file(source, tmp_path / "x.npy", "int8", target, 300)
    assert loss.loss < 0.02
    reconstruct(source, tmp_path / "x.npy", 0.3, "unstructured", zeros)
    for file in (target, zeros):
        content = file.read_bytes()
        assert read_signature(content).inputs[0].shape == (1, -1, WIDTHS[0])
        (y,) = outputs_of(content, {"x": x})
        assert y.shape == (60, 5, WIDTHS[-1])
        longer = with_sample_shapes(content, {"x": np.repeat(x, 2, axis=1)})
        assert outputs_of(longer, {"x": np.repeat(x, 2, axis=1)})[0].shape == (60, 10, WIDTHS[-1])
    with pytest.raises(UsageError, match=r"a sample of x has shape \(5, 3\), expected \?x16"):
        with_sample_shapes(source.read_bytes(), {"x": x[..., :3]})
