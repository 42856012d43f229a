import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgesparse.graph.store import Store


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
    assert store.manifest("k")["files"]["whole"]["bytes"] == 1
    assert store.problems() == []


def test_the_first_of_two_writers_wins(store):
    with store.create("k", {}) as first:
        (first / "f").write_text("first")
        with store.create("k", {}) as second:
            (second / "f").write_text("second")
    assert (store.path("k") / "f").read_text() == "second"
    assert len(list(store.root.iterdir())) == 1


def test_a_killed_writer_leaves_nothing_that_counts(store):
    script = (
        "import sys\nfrom pathlib import Path\nfrom edgesparse.graph.store import Store\n"
        "with Store(Path(sys.argv[1])).create('k', {}) as folder:\n"
        "    (folder / 'half').write_text('x')\n"
        "    print('writing', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as writer:
        writer.stdout.readline()
        store.sweep()
        assert len(list(store.root.iterdir())) == 1, "a living writer's folder was removed"
        os.kill(writer.pid, signal.SIGKILL)
    assert not store.has("k")
    store.sweep()
    assert list(store.root.iterdir()) == []


def test_problems_are_found(store):
    with store.create("k", {}) as folder:
        (folder / "f").write_text("x")
    (store.path("k") / "f").write_text("changed")
    assert store.problems() == ["k: f is missing or changed"]
    Path(store.path("k") / "artifact.json").unlink()
    assert store.problems() == ["k: no manifest"]


def test_the_manifest_is_json(store):
    with store.create("k", {"label": "train"}):
        pass
    assert json.loads((store.path("k") / "artifact.json").read_text())["label"] == "train"
