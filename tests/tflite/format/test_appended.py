"""What lies behind the flatbuffer: found to the byte, whoever wrote the file."""

import pytest

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.appended import trailing_bytes
from edgesparse.tflite.format.encode import decode
from edgesparse.tflite.format.minimal_model import tiny_model
from tests.tools.files import labels


@pytest.mark.parametrize("rest", [b"", b"x", labels(), b"TFL3" * 10_000, b"\1" + b"\0" * 40])
def test_it_is_what_was_appended(tflite_files, rest):
    contents = {name: path.read_bytes() for name, path in tflite_files.items()}
    contents["tiny"] = tiny_model()
    # Written by the converter (C++), and by the Python library.
    contents |= {f"{name} again": decode(content) for name, content in contents.items()}
    for name, content in contents.items():
        assert trailing_bytes(content + rest, name) == rest, name


def test_a_damaged_file_is_a_usage_error(tflite_files):
    content = tflite_files["dense"].read_bytes()
    with pytest.raises(UsageError, match=r"m\.tflite is truncated or damaged"):
        trailing_bytes(content[: len(content) // 2], "m.tflite")
