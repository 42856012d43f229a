import sys
from pathlib import Path

import pytest

from edgesparse.devices.transport.interface import DeviceError, Upload, upload
from edgesparse.devices.transport.local import LocalTransport
from edgesparse.spec.device import Local


@pytest.fixture
def local(tmp_path):
    return LocalTransport("here", Local(), str(tmp_path / "work dir"))


def test_arguments_reach_the_command_as_they_are(local):
    arguments = ["a b", "$(touch x)", ";rm", "'", '"', "*", ""]
    script = "import sys; print(sys.argv[1:])"
    done = local.run([sys.executable, "-c", script, *arguments])
    assert done.stdout.strip() == str(arguments)


def test_a_file_is_copied_once(local, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"content")
    target = f"{local.workdir}/sub/target"
    assert local.put_files([upload(source, target)]) == 7
    assert local.put_files([upload(source, target)]) == 0
    Path(target).write_bytes(b"damaged")
    assert local.put_files([upload(source, target)]) == 7
    assert Path(target).read_bytes() == b"content"
    local.get_file(target, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"


def test_a_wrong_digest_is_refused_and_leaves_nothing(local, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"content")
    with pytest.raises(DeviceError, match="was damaged while it was copied"):
        local.put_files([Upload(source, f"{local.workdir}/target", "0" * 64)])
    assert list(Path(local.workdir).iterdir()) == []


def test_leaving_a_channel_closes_its_stdin_and_waits_for_its_end(local):
    script = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
    with local.open([sys.executable, "-c", script]) as channel:
        pid = int(channel.read_line(30))
    assert not Path(f"/proc/{pid}").exists()


def test_only_folders_below_workdir_are_removed(local, tmp_path):
    with pytest.raises(ValueError, match="is not below"):
        local.remove_folder(str(tmp_path))
    folder = Path(local.workdir, "jobs")
    folder.mkdir(parents=True)
    local.remove_folder(str(folder))
    assert not folder.exists()


def test_clear_errors(local, tmp_path):
    with pytest.raises(DeviceError, match=r"device here: no-such-program"):
        local.run(["no-such-program"])
    with pytest.raises(DeviceError, match="/none/python does not exist"):
        LocalTransport("here", Local(python="/none/python"), str(tmp_path))
    (tmp_path / "file").touch()
    blocked = LocalTransport("here", Local(), str(tmp_path / "file" / "sub"))
    with pytest.raises(DeviceError, match=r"cannot write .*; make its folder writable, or choose"):
        blocked.put_files([upload(tmp_path / "file", f"{blocked.workdir}/x")])
    with pytest.raises(DeviceError, match=r"did not finish within 0.2 s"):
        local.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout_seconds=0.2)
