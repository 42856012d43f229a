"""What is removed on a device: ours and nothing else, by real programs in real folders."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgesparse.devices.agent.events import Round
from edgesparse.devices.agent.job import new_id
from edgesparse.devices.agent.run_job import run_job
from edgesparse.devices.ondevice.tidy import last_changed
from edgesparse.devices.setup.tidy import TIDY, clear, leave
from edgesparse.devices.transport.interface import DeviceError
from edgesparse.devices.transport.workdir import MARKER, claim
from tests.devices.ondevice.test_detached import FOREVER, await_end, host, job, processes

pytestmark = pytest.mark.slow

DIGEST = "0123456789abcdef" * 4
RUN = "20261120-101500-digits-a1b2c3"


def tidy(*arguments):
    return subprocess.run(
        [sys.executable, TIDY, *map(str, arguments)], capture_output=True, text=True
    )


@pytest.fixture
def workdir(tmp_path):
    for name in ("files", "jobs"):
        (tmp_path / "work" / name).mkdir(parents=True)
    (tmp_path / "work" / MARKER).touch()
    return tmp_path / "work"


def old(path):
    os.utime(path, (0, 0), follow_symlinks=False)
    return path


def file(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_only_old_names_of_our_own_form_go(workdir):
    ours = [
        old(file(workdir / "files" / f"{DIGEST}.tflite")),
        old(file(workdir / "files" / f"{DIGEST}.npz.{DIGEST}.0123456789ab.part")),
        old(file(workdir / "files" / f"{DIGEST}.{DIGEST}.part")),
        old(file(workdir / "jobs" / f"{RUN}-pi.json")),
    ]
    old(file(workdir / "jobs" / f"{RUN}-pi" / "job.json"))
    ours.append(old(workdir / "jobs" / f"{RUN}-pi"))
    kept = [
        old(file(workdir / "files" / name))
        for name in ("thesis.pdf", DIGEST[:-1], f"{DIGEST}x", f"{DIGEST}.a b", "README")
    ]
    kept += [
        old(file(workdir / "jobs" / name)) for name in ("application.doc", "20261120", "x.json")
    ]
    kept += [file(workdir / "files" / f"{DIGEST[::-1]}.npz"), old(file(workdir / "notes"))]
    assert tidy("begin", workdir).returncode == 0
    assert [path for path in ours if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []


def test_a_file_that_another_run_removes_meanwhile_is_not_old(workdir):
    before = time.time()
    assert last_changed(workdir / "files" / f"{DIGEST}.npz") >= before


def test_a_job_that_is_written_to_is_not_old(workdir):
    journal = file(workdir / "jobs" / f"{RUN}-pi" / "journal.jsonl")
    old(workdir / "jobs" / f"{RUN}-pi")
    tidy("begin", workdir)
    assert journal.exists()


def test_links_are_neither_followed_nor_removed(workdir, tmp_path):
    theirs = old(file(tmp_path / "theirs" / f"{DIGEST}.tflite"))
    old(theirs.parent)
    for link in (workdir / "files" / f"{DIGEST}.npz", workdir / "jobs" / f"{RUN}-pi"):
        link.symlink_to(theirs if link.suffix else theirs.parent)
        old(link)
    tidy("begin", workdir, RUN)
    tidy("end", workdir, f"{DIGEST}.npz", "../../theirs/x", "..")
    assert theirs.exists()
    (workdir / "files" / f"{DIGEST}.npz").unlink()
    (workdir / "files").rmdir()
    (workdir / "files").symlink_to(theirs.parent)
    tidy("begin", workdir)
    tidy("end", workdir, theirs.name)
    assert theirs.exists()


def test_a_folder_without_the_mark_is_left_alone(workdir):
    (workdir / MARKER).unlink()
    theirs = old(file(workdir / "files" / f"{DIGEST}.tflite"))
    for arguments in (("begin", workdir, RUN), ("end", workdir, theirs.name)):
        assert tidy(*arguments).returncode == 1
    assert theirs.exists()
    assert tidy("begin").returncode == 2


def test_what_a_job_needs_stays_when_another_host_is_done(workdir):
    both = [file(workdir / "files" / f"{digest}.tflite") for digest in (DIGEST, DIGEST[::-1])]
    file(workdir / "jobs" / f"{RUN}-pi" / "job.json", f'{{"model": "{both[0]}"}}')
    tidy("end", workdir, *(path.name for path in both))
    assert [path.exists() for path in both] == [True, False]
    assert [path.name for path in (workdir / "files").iterdir()] == [both[0].name]


def test_a_device_that_measures_keeps_what_seems_old(workdir):
    """Its clock may have been set since: what is in use seems to be from 1970."""
    import fcntl

    theirs = old(file(workdir / "files" / f"{DIGEST}.tflite"))
    with (workdir / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tidy("begin", workdir)
        assert theirs.exists()
    tidy("begin", workdir)
    assert not theirs.exists()


def test_a_run_leaves_nothing_but_programs(server, tflite_files):
    board = server.connect()
    claim(board)
    run_job(board, job(new_id("own"), tflite_files["dense"], tflite_files["int8"], rounds=1))
    assert len(board.used) == 2
    assert len(list(Path(board.workdir, "files").iterdir())) == 2
    leave(board)
    assert list(Path(board.workdir, "files").iterdir()) == []
    assert list(Path(board.workdir, "jobs").iterdir()) == []
    assert {path.name for path in Path(board.workdir).iterdir()} <= {
        MARKER, "files", "jobs", "programs", "lock",
    }  # fmt: skip


def test_the_last_of_two_hosts_takes_their_file_away(server, tflite_files):
    """The one that found it there: the one that brought it ends first, and leaves it to it."""
    first, second = server.connect(), server.connect()
    claim(first)
    run_job(first, job(new_id("one"), tflite_files["dense"], rounds=1))
    files = Path(server.workdir, "files")

    def on_event(event):
        if isinstance(event, Round):
            leave(first)
            assert len(list(files.iterdir())) == 1

    run_job(second, job(new_id("two"), tflite_files["dense"], rounds=1), on_event)
    leave(second)
    assert list(files.iterdir()) == []


def test_a_killed_hosts_job_is_ended_by_its_next_run(server, tmp_path, tflite_files):
    """Its lease would let it go on for an hour."""
    work = tmp_path / "work"
    board = server.connect(work)
    claim(board)
    with host(server, work, tflite_files["dense"], 3600, RUN + "-board") as process:
        for line in process.stdout:
            if line.strip() == "round":
                break
        running = processes(work)
        assert any("detached" in line for line in running.values())
        process.kill()
        process.wait(60)
    clear(board, ["20200101-000000-other-123456"])
    assert list((work / "jobs").iterdir()) != []
    clear(board, [RUN])
    assert list((work / "jobs").iterdir()) == []
    await_end(running)
    board.close()


def test_a_failed_clean_up_is_an_error(server, tmp_path):
    board = server.connect(tmp_path / "unmarked")
    with pytest.raises(DeviceError, match=r"has no \.edgesparse-workdir"):
        clear(board, [])
    board.close()


@pytest.mark.full
def test_stopped_in_the_middle_leaves_nothing(server, tflite_files):
    board, stop = server.connect(), threading.Event()
    claim(board)

    def on_event(event):
        if isinstance(event, Round):
            stop.set()

    with pytest.raises(DeviceError, match="stopped"):
        run_job(board, job(new_id("stop"), tflite_files["dense"], rounds=FOREVER), on_event, stop)
    leave(board)
    for name in ("files", "jobs"):
        assert list(Path(server.workdir, name).iterdir()) == []
