"""A workdir is ours, or nothing is done in it."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgesparse.devices.transport.interface import WorkdirError
from edgesparse.devices.transport.local import LocalTransport
from edgesparse.devices.transport.workdir import MARKER, claim
from edgesparse.spec.device import Local
from tests.conftest import require

pytestmark = pytest.mark.slow


@pytest.fixture(params=["local", "ssh"])
def at(request, server):
    """A way to get a transport to a workdir."""
    opened = []

    def make(place):
        if request.param == "local":
            return LocalTransport("here", Local(), str(place))
        opened.append(server.connect(place))
        return opened[-1]

    yield make
    for transport in opened:
        transport.close()


@pytest.mark.parametrize("name", ["new", "with space", "it's $(ours)", "*"])
def test_a_new_folder_is_marked_and_recognized(at, tmp_path, name):
    path = tmp_path / name / "below"
    claim(at(path))
    first = (path / MARKER).read_text()
    assert len(first) == 33
    (path / "anything").touch()
    claim(at(path))
    assert (path / MARKER).read_text() == first


def test_an_empty_folder_is_claimed(at, tmp_path):
    claim(at(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [MARKER]


@pytest.mark.parametrize(
    "names",
    [
        ["letter.txt"],
        [".bashrc"],
        ["files/holiday.jpg", "jobs/application.doc"],
        ["wheels/spare", "venvs/mine/bin/python", "programs/game.py"],
        ["programs/agent-0123456789abcdef.py", "letter.txt"],
        ["*"],
        ["files\nx"],
    ],
)
def test_a_folder_with_other_files_is_refused(at, tmp_path, names):
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WorkdirError, match=r"has files of others .*choose another") as error:
        claim(at(tmp_path))
    assert error.value.exit_code == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_caches_of_this_machine_may_come_first(at, tmp_path):
    """An emulated device fills the cache before a local one uses it as workdir."""
    (tmp_path / "emulator" / "images").mkdir(parents=True)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / f"{'0123456789abcdef' * 4}.xz").touch()
    claim(at(tmp_path))
    assert (tmp_path / MARKER).is_file()


@pytest.mark.parametrize("name", ["files", "jobs", "programs", "releases", "lock", MARKER])
def test_a_link_where_our_own_would_be_is_refused(at, tmp_path, name):
    claim(at(tmp_path / "work"))
    (tmp_path / "theirs").mkdir()
    path = tmp_path / "work" / name
    path.unlink(missing_ok=True)
    path.symlink_to(tmp_path / "theirs")
    with pytest.raises(WorkdirError, match=f"has a link {name} in place"):
        claim(at(tmp_path / "work"))


def test_a_folder_of_another_user_is_refused(at, tmp_path):
    require(os.getuid() == 0, "root, to give a folder to somebody else")
    path = tmp_path / "planted"
    path.mkdir()
    (path / MARKER).write_text("mine\n")
    os.chown(path, 12345, 12345)
    with pytest.raises(WorkdirError, match="belongs to 12345"):
        claim(at(path))


def test_other_users_cannot_write_into_the_workdir(at, tmp_path):
    location = tmp_path / "open"
    (location / "programs").mkdir(parents=True)
    program = location / "programs" / "agent-0123456789abcdef.py"
    program.touch()
    (location / MARKER).write_text("mine\n")
    for path in (location, location / "programs", program):
        path.chmod(0o777)
    claim(at(location))
    for path in (location, location / "programs", program):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o022


def test_two_at_once_agree(at, tmp_path):
    path = tmp_path / "both"
    both = [at(path) for _ in range(4)]
    errors = []

    def mark(transport):
        try:
            claim(transport)
        except WorkdirError as error:
            errors.append(error)

    threads = [threading.Thread(target=mark, args=(item,)) for item in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len((path / MARKER).read_text()) == 33


def test_a_home_as_workdir_ends_with_exit_code_2_and_every_file_there(tmp_path):
    """As a user meets it; the files are old enough to be tidied up."""
    home = tmp_path / "home"
    for name in ("files/thesis.pdf", "jobs/application.doc", "venvs/mine/x", "wheels/y"):
        path = home / name
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        os.utime(path, (0, 0))
    before = {path: path.stat().st_mtime for path in home.rglob("*")}
    devices = tmp_path / "devices"
    devices.mkdir()
    (devices / "here.yaml").write_text(
        f"name: here\nconnect: {{local: {{}}}}\nworkdir: {home}\nruntimes: [ai-edge-litert]\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "edgesparse", "device", "check", "here"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "has files of others" in done.stderr
    assert {path: path.stat().st_mtime for path in Path(home).rglob("*")} == before
