"""kill -9 where one stage ends and the next begins: the same command finishes what is left, and
the store has no half artifact. Random moments are broken by `make soak`."""

import os
import signal
import subprocess
import sys

import pytest

from edgesparse.graph.workspace import Workspace
from tests.conftest import HERE, TINY

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(1200)]
# Every stage there is, in seconds: nothing is trained, which --force allows; what counts is
# when it is killed.
QUICK = TINY.replace("epochs: 1", "epochs: 0")
MOMENTS = (
    "train ...",  # A stage begins, while its process works.
    "train: ",  # It is in the store, and the next one begins.
    "convert sparse-f32: ",
    "benchmark on here ...",
)
"""Lines of the program's progress, each later in a run than the one before."""


def test_a_run_that_is_killed_between_stages_goes_on_where_it_was(tmp_path):
    (tmp_path / "tiny.yaml").write_text(QUICK)
    (tmp_path / "here.yaml").write_text(HERE)
    workspace = Workspace(tmp_path)
    for moment in MOMENTS:
        assert run(tmp_path, moment) == -signal.SIGKILL, moment
        assert workspace.store.problems() == [], f"after a kill at {moment!r}"
    assert run(tmp_path) == 0
    assert workspace.store.problems() == []
    assert not [p for p in workspace.store.root.iterdir() if p.name.startswith("tmp-")]
    assert {row.status for row in workspace.results().rows} == {"ok"}


def run(folder, moment=None):
    """Returns the exit code; the process is killed at the line of progress that has `moment`."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "edgesparse",
            "deploy",
            "tiny.yaml",
            "--device",
            "here.yaml",
            "--force",
        ],
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    for line in process.stderr:
        if moment is not None and moment in line:
            process.kill()
            break
    process.communicate(timeout=300)
    return process.returncode
