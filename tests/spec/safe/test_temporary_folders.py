"""Temporary folders do not outlive their process for long."""

import os
import signal
import stat
import subprocess
import sys
import tempfile

import pytest

from edgesparse.spec.safe.temporary_folders import TemporaryFolder, temporary_folder

_HOLDS = """
import sys
from edgesparse.spec.safe.temporary_folders import TemporaryFolder
folder = TemporaryFolder()
(folder.path / "big").write_bytes(b"x")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def holder():
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.path = process.stdout.readline().strip()
    return process


def test_a_folder_is_for_its_user_alone_and_goes(parent):
    before = os.umask(0)
    try:
        with temporary_folder() as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    assert list(parent.iterdir()) == []


def test_what_a_killed_process_left_goes_and_no_other(parent):
    alive, killed = holder(), holder()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    theirs = parent / "edgesparse-of-somebody"
    theirs.mkdir()
    (theirs / "file").touch()
    (parent / "edgesparse-link").symlink_to(theirs)
    assert os.path.isdir(killed.path)
    with temporary_folder():
        assert not os.path.exists(killed.path)
        assert os.path.isdir(alive.path)
    assert (theirs / "file").exists()
    assert (parent / "edgesparse-link").is_symlink()
    alive.communicate("")
    alive.wait()


@pytest.mark.parametrize("name", ["edgesparse-env", "edgesparse-abcd1234"])
def test_what_another_program_locks_so_stays(parent, name):
    """`uv venv /tmp/edgesparse-env` makes a folder with a `.lock` that nobody holds."""
    folder = parent / name
    folder.mkdir(mode=0o700)
    (folder / ".lock").touch(mode=0o600)
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    with temporary_folder():
        pass
    assert (folder / "pyvenv.cfg").exists()


def test_closing_twice_is_closing_once(parent):
    folder = TemporaryFolder()
    folder.close()
    other = TemporaryFolder()
    folder.close()
    assert other.path.is_dir()
    other.close()
    assert list(parent.iterdir()) == []
