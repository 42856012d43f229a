"""References to saved models: what is wrong with them, before anything is loaded."""

import pytest

from edgesparse.spec.code.saved_models import saved_model_problems
from edgesparse.spec.pipeline import ModelSource


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("m.txt", "'m.txt' is not a saved Keras model; use a .keras or .h5 file"),
        (
            "m.onnx",
            "'m.onnx' is not a saved Keras model; use a .keras or .h5 file, or 'edgesparse "
            "compress' and 'bench', which take this file",
        ),
    ],
)
def test_a_file_of_another_kind_names_what_takes_it(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    assert saved_model_problems(ModelSource(ref=name), tmp_path) == [("ref", message)]
