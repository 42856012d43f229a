"""What a device says it is."""

import platform as own

import pytest

from edgesparse.devices.transport.interface import DeviceError
from edgesparse.devices.transport.platform import probe
from edgesparse.devices.transport.processes import Completed


class Saying:
    """A device that answers one thing."""

    name, workdir, python = "odd", "/work", "python3"

    def __init__(self, stdout, returncode=0):
        self.done = Completed(returncode, stdout, "")

    def run(self, argv, *, timeout_seconds=60.0):
        return self.done


def test_a_real_one(board):
    result = probe(board)
    assert result.machine == own.machine()
    assert result.python == own.python_version()
    assert (result.implementation, result.has_venv) == ("CPython", True)
    assert result.glibc == own.libc_ver()[1]
    assert result.workdir_error == ""
    assert result.free_bytes > 0
    assert 0 < result.available_bytes <= result.memory_bytes


def test_text_of_a_device_is_bounded_and_only_read():
    text = (
        "machine=" + "x" * 5000 + "\nuser=$(reboot)\nfree_kb=-3\nabout={not json\nos=" + "y" * 999
    )
    result = probe(Saying(text))
    assert len(result.machine) == 40
    assert len(result.os) == 80
    assert result.user == "$(reboot)"
    assert result.free_bytes is None
    assert result.python is None
    assert result.minor == 0


def test_a_shell_that_does_not_work_is_one_message():
    with pytest.raises(DeviceError, match="device odd: cannot be inspected: sh: fork failed"):
        probe(Saying("sh: fork failed", 1))


def test_output_that_ends_early_is_no_device_without_python():
    with pytest.raises(DeviceError, match="device odd: cannot be inspected"):
        probe(Saying("machine=aarch64\nkernel=Linux", 124))


@pytest.mark.parametrize(
    "about",
    [
        '{"version": "3.\u00b2"}',
        '{"version": "3.' + "9" * 5000 + '"}',
        '{"version": [[[]]]}',
        "[" * 100_000,
        '{"version": 1e999, "libc": {}}',
        "null",
    ],
)
def test_whatever_it_says_of_its_python_is_no_traceback(about):
    text = f"machine=\x1b]0;x\x07\nfree_kb={'9' * 400}\nmemory_kb=\u0663\n"
    text += f"tpu=usb yes \u00b2\nabout={about}"
    result = probe(Saying(text))
    assert result.minor == 0
    assert (result.free_bytes, result.memory_bytes, result.tpu_mbit_per_second) == (None,) * 3
    assert "\x1b" not in result.machine
