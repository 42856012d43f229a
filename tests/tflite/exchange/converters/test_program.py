"""The program of the converters, in a Python without them."""

import sys

import pytest

from edgesparse.spec.errors import UsageError
from edgesparse.spec.safe.isolated_python import run_json
from edgesparse.tflite.exchange.convert import converter_command


def test_a_converter_that_is_not_installed_is_an_answer(tmp_path):
    """It starts with nothing of edgesparse but the converters' own package."""
    arguments = {"format": "onnx", "name": "m.onnx", "source": str(tmp_path / "m.onnx"),
                 "target": str(tmp_path / "m.tflite"), "samples": "", "external": [],
                 "path": []}  # fmt: skip
    with pytest.raises(UsageError, match=r"m\.onnx cannot be converted: ModuleNotFoundError"):
        run_json(converter_command(sys.executable, arguments), "m", 60)
