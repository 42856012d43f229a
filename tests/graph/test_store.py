import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgesparse.graph.store import MANIFEST, Store
from edgesparse.spec.errors import EdgesparseError
from tests.conftest import require


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_an_artifact_is_whole_or_not_there(store):
    def fail_halfway():
        with store.create("k", {}) as folder:
            (folder / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert list(store.root.iterdir()) == []
    with store.create("k", {"stage": "s"}) as folder:
        (folder / "whole").write_text("x")
        assert not store.has("k")
    assert store.has("k")
    manifest = json.loads((store.path("k") / MANIFEST).read_text())
    assert manifest["files"]["whole"]["bytes"] == 1
    assert store.problems() == []


def test_the_first_of_two_writers_wins(store):
    with store.create("k", {}) as first:
        (first / "f").write_text("first")
        with store.create("k", {}) as second:
            (second / "f").write_text("second")
    assert (store.path("k") / "f").read_text() == "second"
    assert len(list(store.root.iterdir())) == 1


_WRITES = """
import sys
from pathlib import Path
from edgesparse.graph.store import Store
with Store(Path(sys.argv[1])).create("k", {}) as folder:
    (folder / "half").write_text("x")
    print("writing", flush=True)
    sys.stdin.read()
"""
_SWEEPS = """
import sys
from pathlib import Path
from edgesparse.graph.store import Store
Store(Path(sys.argv[1])).sweep()
"""


def test_a_killed_writer_leaves_nothing_that_counts(store):
    command = [sys.executable, "-c", _WRITES, str(store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as writer:
        writer.stdout.readline()
        store.sweep()
        assert len(list(store.root.iterdir())) == 1, "a living writer's folder was removed"
        os.kill(writer.pid, signal.SIGKILL)
    assert not store.has("k")
    store.sweep()
    assert list(store.root.iterdir()) == []
    assert list(store.root.with_name("locks").iterdir()) == []


def test_folders_of_killed_older_versions_are_swept(store):
    """They have no lock: an exact name, a process that is gone, and a day without a change."""
    long_ago = time.time() - 2 * 24 * 3600
    ended = 2**22 + 1  # No Linux process has this id.
    kept = {
        f"tmp-{os.getpid()}@0a1b-01234567": long_ago,
        f"tmp-{ended}@0a1b-89abcdef": None,
        f"tmp-{ended}-notes": long_ago,
        f"tmp-{ended}@0a1b-01234567.bak": long_ago,
    }
    swept = {f"tmp-{ended}@0a1b-01234567": long_ago, f"tmp-{ended}-01234567": long_ago}
    for name, changed in {**kept, **swept}.items():
        folder = store.root / name
        folder.mkdir()
        (folder / "half").write_text("x")
        if changed is not None:
            os.utime(folder / "half", (changed, changed))
            os.utime(folder, (changed, changed))
    store.sweep()
    assert {entry.name for entry in store.root.iterdir()} == set(kept)


def test_a_container_of_the_same_host_name_sweeps_no_folder_that_is_filled(store):
    command = [sys.executable, "-c", _WRITES, str(store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as writer:
        writer.stdout.readline()
        # As in another container: there is no process of the writer's number.
        sweeper = ["unshare", "--pid", "--fork", sys.executable, "-c", _SWEEPS, str(store.root)]
        done = subprocess.run(sweeper, capture_output=True, text=True)
        writer.communicate(b"")
        require(done.returncode == 0, f"processes of their own (run as root): {done.stderr}")
    assert writer.returncode == 0
    assert store.damage("k") is None
    assert (store.path("k") / "half").read_text() == "x"


def test_problems_are_listed(store):
    with store.create("k", {}) as folder:
        (folder / "f").write_text("x")
    (store.path("k") / "f").write_text("changed")
    assert store.problems() == ["k: f has changed"]
    Path(store.path("k") / "artifact.json").unlink()
    assert store.problems() == ["k: artifact.json is missing"]


def test_the_manifest_is_json(store):
    with store.create("k", {"label": "train"}):
        pass
    assert json.loads((store.path("k") / "artifact.json").read_text())["label"] == "train"


def damaged(store, how):
    with store.create("k", {}) as folder:
        (folder / "model.tflite").write_bytes(b"x" * 1000)
        (folder / "verify.json").write_text("{}")
    assert store.damage("k") is None
    path = store.path("k")
    model = path / "model.tflite"
    state = model.stat()
    if how == "flipped, with its time kept":
        model.write_bytes(b"x" * 999 + b"y")
        os.utime(model, ns=(state.st_atime_ns, state.st_mtime_ns))
        # A disk that rots changes no time; whoever looks for the first time sees it all the same.
        store = Store(store.root)
    elif how == "flipped":
        model.write_bytes(b"x" * 999 + b"y")
    elif how == "short":
        model.write_bytes(b"x" * 10)
    elif how == "missing":
        (path / "verify.json").unlink()
    elif how == "no manifest":
        (path / MANIFEST).unlink()
    elif how == "broken manifest":
        (path / MANIFEST).write_text("[" * 100_000)
    elif how == "another manifest":
        (path / MANIFEST).write_text('{"files": {"model.tflite": 3}}')
    elif how == "a file":
        shutil.rmtree(path)
        path.write_text("")
    return store


DAMAGES = (
    "flipped, with its time kept", "flipped", "short", "missing", "no manifest",
    "broken manifest", "another manifest", "a file",
)  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_detected_and_repaired(store, how):
    store = damaged(store, how)
    assert store.damage("k") is not None
    store.discard("k")
    assert store.damage("k") is None
    with store.create("k", {}) as folder:
        (folder / "model.tflite").write_bytes(b"new")
    assert store.damage("k") is None
    assert [path.name for path in store.root.iterdir()] == ["k"]


@pytest.mark.parametrize("how", ["no manifest", "a file"])
def test_what_is_no_artifact_never_blocks_its_place(store, how):
    store = damaged(store, how)
    with store.create("k", {}) as folder:
        (folder / "model.tflite").write_bytes(b"new")
    assert store.damage("k") is None
    assert (store.path("k") / "model.tflite").read_bytes() == b"new"


def test_contents_are_read_once(store, monkeypatch):
    store = damaged(store, "not at all")
    monkeypatch.setattr("edgesparse.graph.store.file_digest", lambda _: pytest.fail("read again"))
    assert store.damage("k") is None
    os.utime(store.path("k") / "model.tflite", (1, 1))
    with pytest.raises(pytest.fail.Exception, match="read again"):
        store.damage("k")


def test_of_two_that_need_an_artifact_one_makes_it(store):
    """The second waits, and finds it stored; an interrupt ends the waiting."""
    created, waiting = threading.Event(), threading.Event()

    def second():
        waiting.set()
        with store.reserved("key") as stored:
            assert created.is_set()
            return stored

    with ThreadPoolExecutor(1) as pool:
        with store.reserved("key") as stored:
            assert not stored
            later = pool.submit(second)
            waiting.wait(60)
            stop = threading.Event()
            stop.set()
            with (
                pytest.raises(EdgesparseError, match="interrupted"),
                store.reserved("key", stop),
            ):
                pass
            with store.create("key", {}) as folder:
                (folder / "file").write_text("x")
            created.set()
        assert later.result(60) is True
