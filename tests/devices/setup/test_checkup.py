"""One screen that says what is there, what is missing and what to type."""

import subprocess
import sys
from contextlib import closing

import pytest

from edgesparse.delegate.load import TESTED
from edgesparse.devices.setup import checkup as setup_checkup
from edgesparse.devices.setup.checkup import MISSING, NOTE, OK, checkup
from edgesparse.devices.setup.runtimes import provision
from edgesparse.devices.transport.interface import DeviceError
from edgesparse.spec.reading.load import parse_device
from tests.conftest import require
from tests.tools.edgetpu import make_compiler


def look(server, board, text):
    yaml = server.device_yaml().replace("runtimes: [ai-edge-litert]\n", text)
    return {f.subject: f for f in checkup(board, parse_device(yaml).spec)}


def test_what_is_there_is_tried(server, board):
    result = look(server, board, "runtimes: [ai-edge-litert]\n")
    assert result["connection"].text.startswith("ssh ")
    assert {result[s].state for s in ("connection", "system", "python", "workdir")} == {OK}
    assert result["ai-edge-litert"].text.endswith(", a trial model ran")
    assert result["delegate"].state == OK
    text = result["delegate"].text
    assert text.startswith("edgesparse loads with ai-edge-litert, instruction set ")
    assert text.split()[-1] in ("avx512vnni", "avxvnni", "avx2", "dotprod", "neon", "portable")


@pytest.mark.slow
def test_a_delegate_that_does_not_load_says_why(server, board, monkeypatch, tmp_path):
    damaged = tmp_path / "libedgesparse-x86_64.so"
    damaged.write_bytes(b"\x7fELF")
    with monkeypatch.context() as patch:
        patch.setattr(setup_checkup, "library", lambda _: damaged)
        finding = look(server, board, "runtimes: [ai-edge-litert]\n")["delegate"]
    assert finding.state == NOTE
    assert finding.text.startswith("edgesparse does not load with ai-edge-litert: ")
    assert "nothing to do" in finding.todo
    monkeypatch.setitem(TESTED, "ai-edge-litert", ("0.9",))
    finding = look(server, board, "runtimes: [ai-edge-litert]\n")["delegate"]
    assert "not tested with ai-edge-litert" in finding.text
    assert "delegate" not in look(server, board, "runtimes: [ai-edge-litert]\ndelegate: none\n")


def test_what_is_missing_says_what_to_do(server, board):
    result = look(server, board, "runtimes: [{name: ai-edge-litert, version: 0.0.1}]\n")
    assert result["ai-edge-litert"].state == MISSING
    assert "the device file requires 0.0.1" in result["ai-edge-litert"].text


@pytest.mark.parametrize("compiler", ["local", "precompiled"])
def test_a_device_without_its_edge_tpu(server, board, tmp_path, compiler):
    values = (
        f"{{local: {{command: {make_compiler(tmp_path / 'bin')}}}}}"
        if compiler == "local"
        else f"{{precompiled: {{folder: {tmp_path}}}}}"
    )
    text = f"runtimes: [ai-edge-litert]\ndelegate: edgetpu\nedgetpu: {{compiler: {values}}}\n"
    result = look(server, board, text)
    assert result["edge tpu"].state == MISSING
    assert "no Edge TPU on its USB" in result["edge tpu"].text
    assert result["compiler"].state == OK


def test_a_compiler_that_is_missing(server, board):
    text = (
        "runtimes: [ai-edge-litert]\ndelegate: edgetpu\n"
        "edgetpu: {compiler: {local: {command: no-compiler}}}\n"
    )
    result = look(server, board, text)
    assert result["compiler"].state == MISSING
    assert "coral apt source" in result["compiler"].todo
    assert NOTE == "note"


def test_a_32_bit_system_says_the_way_out(server, tmp_path):
    """Python's own platform counts: such a system may have a 64-bit kernel."""
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\n_PYTHON_HOST_PLATFORM=linux-armv7l exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with closing(server.connect(python=str(python))) as board:
        result = look(server, board, "runtimes: [ai-edge-litert]\n")
    assert result["32 bits"].text == "32-bit system: ai-edge-litert has no wheels for it"
    assert "Raspberry Pi OS (64-bit)" in result["32 bits"].todo


def test_a_workdir_that_runs_nothing_is_refused(server, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "noexec,size=1m", "tmpfs", str(tmp_path)]
    require(subprocess.run(mount, check=False).returncode == 0, "the right to mount a file system")
    try:
        with closing(server.connect(tmp_path)) as board:
            text = server.device_yaml().replace("install: system\n", "")
            device = parse_device(text).spec
            result = {f.subject: f for f in checkup(board, device)}
            with pytest.raises(DeviceError, match="mounted noexec, so runtimes cannot"):
                provision(board, device)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert result["workdir"].state == MISSING
    assert result["workdir"].text.endswith(", mounted noexec")
