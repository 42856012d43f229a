import sys
import venv

import pytest

from edgesparse.commands.fleet.target import _runtime_problem, open_target
from edgesparse.devices.transport.interface import DeviceError
from edgesparse.spec.device import Runtime
from edgesparse.spec.reading.load import parse_device

TEXT = """
name: here
connect: {{local: {{{python}}}}}
workdir: {workdir}
runtimes: {runtimes}
"""


def target(tmp_path, runtimes, python=""):
    text = TEXT.format(workdir=tmp_path / "work", runtimes=runtimes, python=python)
    return open_target(parse_device(text).spec)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A Python without any runtime."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return f"python: {folder}/bin/python"


def test_installed_runtimes_and_their_versions(tmp_path):
    found = target(tmp_path, "[ai-edge-litert]")
    assert [r.name for r in found.runtimes] == ["ai-edge-litert"]
    assert found.missing == ()
    assert found.info.python == ".".join(map(str, sys.version_info[:3]))


def test_another_version_is_missing(tmp_path):
    found = target(tmp_path, "[{name: ai-edge-litert, version: 0.0.1}]")
    assert found.runtimes == ()
    assert "but its file requires 0.0.1" in found.missing[0][1]


def test_a_required_runtime_that_is_not_there(tmp_path, bare):
    found = target(tmp_path, "[ai-edge-litert]", bare)
    assert "ai-edge-litert is not installed on device here" in found.missing[0][1]
    assert "pip install ai-edge-litert" in found.missing[0][1]


def test_an_optional_one_is_a_note(tmp_path, bare):
    found = target(tmp_path, "[{name: tflite-runtime, optional: true}, ai-edge-litert]", bare)
    assert found.notes[0].startswith("left out on here: tflite-runtime ")
    assert len(found.missing) == 1


@pytest.mark.parametrize(
    ("python", "text"),
    [
        ("3.11.7", "tflite-runtime is not installed on device here for Python 3.11.7"),
        ("3.13.0", "tflite-runtime has no wheels for device here's Python 3.13.0"),
        ("junk", "tflite-runtime is not installed"),
    ],
)
def test_advice_follows_the_python(tmp_path, python, text):
    found = target(tmp_path, "[ai-edge-litert]")
    runtime, host = Runtime(name="tflite-runtime"), found.host.model_copy(update={"python": python})
    assert text in _runtime_problem(found.device, runtime, None, host)


def test_no_runtime_at_all_is_an_error(tmp_path, bare):
    with pytest.raises(
        DeviceError, match="device here has no runtime: left out on here: tflite-runtime"
    ):
        target(tmp_path, "[{name: tflite-runtime, optional: true}]", bare)
