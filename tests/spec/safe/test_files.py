"""Files and folders that are whole or not there, on disks that are really full."""

import os
import signal
import subprocess
import sys

import pytest

from edgesparse.spec.safe.files import new_folder, replace_bytes, replace_text
from tests.tools.files import no_room


def fill_a_folder(path):
    with new_folder(path) as part:
        (part / "small").write_bytes(b"x")
        (part / "large").write_bytes(b"x" * 1000)


def test_what_was_there_stays_where_there_is_no_room(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"the only copy")
    with no_room(100), pytest.raises(OSError, match="too large"):
        replace_bytes(path, b"x" * 1000)
    with no_room(100), pytest.raises(OSError, match="too large"):
        replace_text(path, "x" * 1000)
    assert path.read_bytes() == b"the only copy"
    with no_room(100), pytest.raises(OSError, match="too large"):
        fill_a_folder(tmp_path / "folder")
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_the_old_file_and_no_folder(tmp_path):
    (tmp_path / "file").write_text("old")
    program = """
import os, pathlib, signal, sys
from edgesparse.spec.safe.files import new_folder, replace_bytes
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "file":
    os.fsync = die
    replace_bytes(pathlib.Path("file"), b"new" * 10**6)
with new_folder(pathlib.Path("folder")) as part:
    (part / "half").write_text("half")
    die()
"""
    for what in ("file", "folder"):
        command = [sys.executable, "-c", program, what]
        assert subprocess.run(command, cwd=tmp_path).returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_text() == "old"
    assert not (tmp_path / "folder").exists()


def test_a_folder_replaces_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileExistsError), new_folder(tmp_path / "taken"):
        pass
    with new_folder(tmp_path / "deep" / "new") as part:
        (part / "sub").mkdir()
        (part / "sub" / "file").write_text("x")
    assert (tmp_path / "deep/new/sub/file").read_text() == "x"
    assert os.listdir(tmp_path / "deep") == ["new"]


def test_links_modes_and_pipes_stay_what_they_are(tmp_path):
    real, link, pipe = (tmp_path / name for name in ("real", "link", "pipe"))
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    replace_text(link, "new")
    assert (link.is_symlink(), real.read_text()) == (True, "new")
    assert real.stat().st_mode & 0o777 == 0o640
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    replace_bytes(pipe, b"through it")
    assert os.read(reader, 100) == b"through it"
    os.close(reader)
    assert pipe.is_fifo()
