"""One screen that says what is there, what is missing and what to type."""

import subprocess
import sys
from contextlib import closing

import pytest

from edgesparse.devices.setup.checkup import MISSING, NOTE, OK, checkup
from edgesparse.devices.setup.provision import provision
from edgesparse.devices.transport.interface import DeviceError
from edgesparse.spec.reading.load import parse_device
from tests.conftest import require
from tests.tools.edgetpu import make_compiler


def look(server, board, text):
    yaml = server.device_yaml().replace("runtimes: [ai-edge-litert]\n", text)
    return {f.subject: f for f in checkup(board, parse_device(yaml).spec)}


def test_what_is_there_is_tried(server, board):
    found = look(server, board, "runtimes: [ai-edge-litert]\n")
    assert found["connection"].text.startswith("ssh ")
    assert {found[s].state for s in ("connection", "system", "python", "workdir")} == {OK}
    assert found["ai-edge-litert"].text.endswith(", a trial model ran")


def test_what_is_missing_says_what_to_do(server, board):
    found = look(server, board, "runtimes: [{name: ai-edge-litert, version: 0.0.1}]\n")
    assert found["ai-edge-litert"].state == MISSING
    assert "the device file asks for 0.0.1" in found["ai-edge-litert"].text


@pytest.mark.parametrize("compiler", ["local", "precompiled"])
def test_a_device_without_its_edge_tpu(server, board, tmp_path, compiler):
    given = (
        f"{{local: {{command: {make_compiler(tmp_path / 'bin')}}}}}"
        if compiler == "local"
        else f"{{precompiled: {{folder: {tmp_path}}}}}"
    )
    text = f"runtimes: [ai-edge-litert]\ndelegate: edgetpu\nedgetpu: {{compiler: {given}}}\n"
    found = look(server, board, text)
    assert found["edge tpu"].state == MISSING
    assert "no Edge TPU can be seen" in found["edge tpu"].text
    assert found["compiler"].state == OK


def test_a_compiler_that_is_missing(server, board):
    text = (
        "runtimes: [ai-edge-litert]\ndelegate: edgetpu\n"
        "edgetpu: {compiler: {local: {command: no-compiler}}}\n"
    )
    found = look(server, board, text)
    assert found["compiler"].state == MISSING
    assert "coral apt source" in found["compiler"].todo
    assert NOTE == "note"


def test_a_32_bit_system_says_the_way_out(server, tmp_path):
    """Python's own platform counts: such a system may have a 64-bit kernel."""
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\n_PYTHON_HOST_PLATFORM=linux-armv7l exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with closing(server.connect(python=str(python))) as board:
        found = look(server, board, "runtimes: [ai-edge-litert]\n")
    assert found["32 bits"].text == "a 32-bit system: ai-edge-litert has no wheels for it"
    assert "Raspberry Pi OS (64-bit)" in found["32 bits"].todo


def test_a_workdir_that_runs_nothing_is_refused(server, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "noexec,size=1m", "tmpfs", str(tmp_path)]
    require(subprocess.run(mount, check=False).returncode == 0, "the right to mount a file system")
    try:
        with closing(server.connect(tmp_path)) as board:
            text = server.device_yaml().replace("install: system\n", "")
            device = parse_device(text).spec
            found = {f.subject: f for f in checkup(board, device)}
            with pytest.raises(DeviceError, match="mounted noexec, so that no runtime"):
                provision(board, device)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert found["workdir"].state == MISSING
    assert found["workdir"].text.endswith(", mounted noexec")
