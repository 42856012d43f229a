"""Dask on this machine: started by any script, and gone with it."""

import os
import signal
import subprocess
import sys

import pytest

from edgesparse.graph.execution import here
from edgesparse.spec.errors import EdgesparseError
from tests.conftest import ROOT
from tests.devices.ondevice.test_detached import await_end
from tests.tools.sshd import descendants

pytestmark = pytest.mark.slow
# Without a __main__ guard, which multiprocessing needs.
SCRIPT = """
import os, sys
from distributed import Client
from edgesparse.graph.execution.here import LocalDask
dask = LocalDask(2, 3)
with Client(dask.address) as client:
    client.wait_for_workers(2, timeout=60)
    pids = set(client.run(os.getpid).values())
    print(len(pids), os.getpid() in pids, flush=True)
    if sys.argv[1] == "stay":
        sys.stdin.read()
dask.close()
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)

    def start(word):
        return subprocess.Popen(
            [sys.executable, path, word], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    return start


def test_a_script_needs_no_guard_and_leaves_nothing(script):
    with script("go") as process:
        assert process.stdout.readline().split() == ["2", "False"]
        below = descendants(process.pid)
        process.stdin.close()
    assert process.returncode == 0
    await_end(below)


def test_what_kill_9_ends_takes_its_workers_along(script):
    with script("stay") as process:
        assert process.stdout.readline().split() == ["2", "False"]
        below = descendants(process.pid)
        assert len(below) >= 4  # A scheduler, a nanny, two workers.
        process.send_signal(signal.SIGKILL)
        await_end(below)


def test_a_scheduler_that_does_not_start_says_why(monkeypatch):
    monkeypatch.setattr(here, "_BOOT", "raise SystemExit('no room')")
    with pytest.raises(EdgesparseError, match="Dask's scheduler does not start: no room"):
        here.LocalDask(1, 1)
