"""kill -9 at random moments: the same command finishes, and the store has no half artifact."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from edgesparse.graph.store import Store
from edgesparse.graph.workspace import Workspace
from tests.conftest import HERE, TINY

# Every stage there is, in seconds: nothing is trained, and what counts is when it is killed.
QUICK = TINY.replace("epochs: 1", "epochs: 0")
KILLS = 12
SEED = 20


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kill_at_random_moments(tmp_path):
    (tmp_path / "tiny.yaml").write_text(QUICK)
    (tmp_path / "here.yaml").write_text(HERE)
    store = Store(tmp_path / "work" / ".edgesparse" / "store")
    chance = random.Random(SEED)
    start = time.monotonic()
    assert run(tmp_path, "reference") == 0
    whole = time.monotonic() - start
    kills = finished = 0
    fresh = 0
    while kills < KILLS:
        # A finished run leaves nothing to interrupt: begin anew, in another workspace.
        folder = f"work{fresh}"
        code = run(tmp_path, folder, chance.uniform(0.05, whole))
        store = Store(tmp_path / folder / ".edgesparse" / "store")
        assert store.problems() == [], f"after kill {kills}"
        if code == -signal.SIGKILL:
            kills += 1
        else:
            assert code == 0
            finished += 1
            fresh += 1
    for number in range(fresh + 1):
        folder = f"work{number}"
        assert run(tmp_path, folder) == 0
        store = Store(tmp_path / folder / ".edgesparse" / "store")
        assert store.problems() == []
        assert not [p for p in store.root.iterdir() if p.name.startswith("tmp-")]
        rows = Workspace(tmp_path / folder).results().rows
        assert {r.status for r in rows} == {"ok"}


def run(tmp_path, folder, kill_after_seconds=None):
    """Returns the exit code; -9 if the moment came before the end."""
    (tmp_path / folder).mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "edgesparse", "deploy", "../tiny.yaml", "--device", "../here.yaml"],
        cwd=tmp_path / folder,
        env={**os.environ, "HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    try:
        return process.wait(timeout=kill_after_seconds or 300)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
