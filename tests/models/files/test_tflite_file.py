"""A .tflite file as a Keras model."""

import numpy as np
import pytest

from edgesparse import models
from edgesparse.models.files.tflite_file import content_of, read
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import ModelSource
from edgesparse.stages.base.conversion import to_tflite
from edgesparse.tflite.format.flatbuffer import constants, open_model
from edgesparse.tflite.format.signature import read_signature
from edgesparse.tflite.post_training.calibration_samples import outputs_of


def test_it_has_the_names_the_shapes_and_the_outputs_of_the_file(tflite_files, samples):
    content = tflite_files["dense"].read_bytes()
    signature = read_signature(content)
    model = models.build(ModelSource(ref=str(tflite_files["dense"])), tflite_files["dense"].parent)
    (name,) = (spec.name for spec in signature.inputs)
    assert model.input_names == [name]
    assert model.output_names == [spec.name for spec in signature.outputs]
    assert content_of(model) == content
    (expected,) = outputs_of(content, {name: samples})
    answers = model.predict(samples, batch_size=5, verbose=0)
    np.testing.assert_allclose(answers, expected.reshape(answers.shape), atol=1e-6)
    assert model(samples[:0]).shape == (0, *answers.shape[1:])


def test_it_is_converted_as_it_is_and_quantized_by_its_samples(tflite_files, samples):
    pytest.importorskip("ai_edge_quantizer")
    path = tflite_files["dense"]
    model, _ = read(path)
    assert to_tflite(model, "f32", samples) == path.read_bytes()
    kinds = {"int8": "i", "dynamic": "i", "f16": "f"}
    for scheme, kind in kinds.items():
        content = to_tflite(model, scheme, samples)
        weights = [c for c in constants(open_model(content, "m"), content) if c.is_weight]
        assert len(content) < path.stat().st_size
        assert {c.values.dtype.kind for c in weights} == {kind}
    with pytest.raises(Exception, match="cannot become uint8; use int8, dynamic or f16"):
        to_tflite(model, "uint8", samples)


def test_a_damaged_file_is_an_error(tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"m\.tflite cannot be read"):
        read(tmp_path / "m.tflite")
