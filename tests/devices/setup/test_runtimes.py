"""Devices without Python, without room, with an old Python; and real set-ups from real wheels."""

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgesparse.devices.agent.events import Check, Round
from edgesparse.devices.agent.job import Entry, Job, Settings
from edgesparse.devices.agent.run_job import host_info, run_job
from edgesparse.devices.setup import runtimes as provisioning
from edgesparse.devices.setup.checkup import checkup
from edgesparse.devices.setup.runtimes import provision
from edgesparse.devices.transport.interface import DeviceError, upload
from edgesparse.spec.reading.load import parse_device
from edgesparse.tflite.format.minimal_model import tiny_model
from tests.conftest import require
from tests.devices.ondevice.test_detached import processes

pytestmark = pytest.mark.slow


def device(server, runtimes="[ai-edge-litert]", runtime="venv"):
    text = server.device_yaml().replace("install: system", f"install: {runtime}")
    return parse_device(text.replace("[ai-edge-litert]", runtimes)).spec


@contextmanager
def mounted(place, *options):
    """A file system of its own at `place`."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True)
    require(done.returncode == 0, "the right to mount a file system (run as root)")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_no_python_is_one_message(server, tmp_path):
    board = server.connect(tmp_path / "work", python="python3-none")
    with pytest.raises(DeviceError, match=r"has no python3-none.*sudo apt-get install python3"):
        provision(board, device(server))
    result = {f.subject: f for f in checkup(board, device(server))}
    assert result["agent"].state == "MISSING"
    board.close()


def test_a_python_that_is_too_old_is_one_message(server, tmp_path):
    old = tmp_path / "python3.5"
    about = '{"version": "3.5.3", "libc": "2.24", "platform": "linux-armv7l", "venv": true}'
    old.write_text(f"#!/bin/sh\necho '{about}'\n")
    old.chmod(0o755)
    board = server.connect(tmp_path / "work", python=str(old))
    with pytest.raises(DeviceError, match=r"has Python 3.5.3; the agent needs 3.7"):
        provision(board, device(server))
    board.close()


def test_a_workdir_that_is_read_only_is_one_message(server, tmp_path):
    with mounted(tmp_path / "disk", "ro", "size=1m") as disk:
        board = server.connect(disk / "work")
        with pytest.raises(DeviceError, match=r"cannot write to .*Read-only.*another workdir"):
            provision(board, device(server))
        board.close()


def test_too_little_space_is_an_error_before_sending(server, tmp_path):
    with mounted(tmp_path / "disk", "size=2m") as disk:
        board = server.connect(disk / "work")
        with pytest.raises(DeviceError, match=r"MB are free at .*the runtimes need \d+ MB"):
            provision(board, device(server))
        board.close()


def test_a_disk_that_fills_up_leaves_nothing_half(server, tmp_path, monkeypatch):
    """Room enough for what is sent first: the file that does not fit leaves no part."""
    big = tmp_path / "big"
    big.write_bytes(os.urandom(3_000_000))
    small = tmp_path / "small"
    small.write_bytes(os.urandom(300_000))
    with mounted(tmp_path / "disk", "size=2m") as disk:
        board = server.connect(disk / "work")
        files = [upload(small, f"{disk}/work/small"), upload(big, f"{disk}/work/big")]
        # As it is where others write at the same time: there seems to be room.
        monkeypatch.setattr("edgesparse.devices.transport.interface.ROOM_LEFT_BYTES", -(10**9))
        with pytest.raises(DeviceError, match=r"cannot write .*No space left.*free space"):
            board.put_files(files)
        assert [path.name for path in (disk / "work").iterdir()] == ["small"]
        monkeypatch.setattr(provisioning, "NEEDED_BYTES", 0)
        with pytest.raises(DeviceError, match=r"No space left"):
            provision(board, device(server))
        assert not (disk / "work" / "venv").exists()
        board.close()


def test_a_machine_without_wheels_says_what_to_do_instead(server, tmp_path):
    odd = tmp_path / "python3"
    about = (
        '{"version": "3.13.5", "libc": "2.41", "platform": "linux-riscv64", "venv": true, '
        '"implementation": "CPython"}'
    )
    odd.write_text(f"#!/bin/sh\necho '{about}'\n")
    odd.chmod(0o755)
    board = server.connect(tmp_path / "work", python=str(odd))
    with pytest.raises(DeviceError, match=r"ai-edge-litert has no wheels for Python 3.13.5, riscv"):
        provision(board, device(server))
    board.close()


def measured(board, runtime, tmp_path):
    model = tmp_path / "tiny.tflite"
    model.write_bytes(tiny_model())
    entry = Entry("tiny", model, runtime, "xnnpack", 1)
    events = run_job(board, Job("tiny", 1, Settings(1, 0.0, 5, 0.0, 60.0), (entry,)))
    return {type(event) for event in events}


def test_a_set_up_is_done_once(server, tmp_path):
    """Wheels chosen and downloaded here, unpacked there, and nothing sent the second time."""
    board = server.connect(tmp_path / "work")
    expected = device(server)
    before = {f.subject: f for f in checkup(board, expected)}
    assert before["runtimes"].state == "MISSING"
    assert "edgesparse device setup board" in before["runtimes"].todo
    shares = []
    first = provision(board, expected, lambda share, _: shares.append(share))
    assert first.changed
    assert first.bytes_sent > 1_000_000
    assert shares == sorted(shares)
    assert board.python == f"{tmp_path}/work/venv/bin/python"
    assert host_info(board).runtimes == dict(first.versions)
    assert measured(board, "ai-edge-litert", tmp_path) >= {Check, Round}
    assert list((tmp_path / "work" / "wheels").iterdir()) == []
    board.close()
    board = server.connect(tmp_path / "work")
    second = provision(board, expected)
    assert (second.changed, second.bytes_sent) == (False, 0)
    after = {f.subject: f for f in checkup(board, expected)}
    assert after["ai-edge-litert"].state == "ok"
    # A set-up of other runtimes takes the first one's place.
    other = provision(board, device(server, "[{name: ai-edge-litert, version: 1.4.0}]"))
    assert host_info(board).runtimes == dict(other.versions) == {"ai-edge-litert": "1.4.0"}
    assert len([p for p in (tmp_path / "work/venvs").iterdir() if p.is_dir()]) == 1
    board.close()


@pytest.mark.slow
@pytest.mark.full
def test_a_set_up_that_is_cut_leaves_nothing_half(server, tmp_path):
    board = server.connect(tmp_path / "work")
    killed = []

    def cut(_, text):
        if text == "unpacking numpy":
            killed.extend(p for p, line in processes(tmp_path).items() if "install_wheels" in line)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(DeviceError, match="set-up did not finish"):
        provision(board, device(server), cut)
    assert killed
    assert not (tmp_path / "work" / "venv").exists()
    again = provision(board, device(server))
    assert again.changed
    assert measured(board, "ai-edge-litert", tmp_path) >= {Check, Round}
    assert not list((tmp_path / "work" / "venvs").glob("*.part"))
    board.close()


def other_python(version):
    """A CPython of that version: in PATH, or one that pyenv has."""
    roots = [os.environ.get("PYENV_ROOT", "~/.pyenv"), "~/.pyenv"]
    result = [
        str(path)
        for root in roots
        for path in Path(root).expanduser().glob(f"versions/{version}.*/bin/python{version}")
    ]
    command = shutil.which(f"python{version}")
    for path in [*result, *([command] if command else [])]:
        if subprocess.run([path, "-c", "import venv"], capture_output=True).returncode == 0:
            return path
    return None


@pytest.mark.full
@pytest.mark.parametrize(
    ("version", "runtime", "wheel"),
    [
        ("3.7", "tflite-runtime", "2.11.0"),  # As on a Coral Dev Board.
        ("3.13", "ai-edge-litert", "2.1.6"),  # As on Raspberry Pi OS Trixie.
    ],
)
def test_the_agent_runs_on_other_pythons(server, tmp_path, version, runtime, wheel):
    """The old and the new: everything real, from wheels chosen for that Python."""
    python = other_python(version)
    require(python is not None, f"a CPython {version} (pyenv install {version})")
    board = server.connect(tmp_path / "work", python=python)
    done = provision(board, device(server, f"[{runtime}]"))
    assert done.versions == {runtime: wheel}
    about = host_info(board)
    assert about.python.startswith(f"{version}.")
    assert about.runtimes == {runtime: wheel}
    assert measured(board, runtime, tmp_path) >= {Check, Round}
    board.close()
