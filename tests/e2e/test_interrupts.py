"""Ctrl-C, and two runs at once: what is finished is kept, and no process is left."""

import os
import signal
from pathlib import Path

import pytest

from edgesparse.graph.workspace import Workspace
from tests.e2e.conftest import await_rounds, deploy, edit, start

pytestmark = pytest.mark.slow


@pytest.mark.full
def test_ctrl_c_while_training_keeps_the_store_and_the_next_run_goes_on(folder):
    edit(folder, "epochs: 1, batch_size: 64", "epochs: 1000, batch_size: 64")
    process = start(folder, "deploy", "tiny.yaml", "--device", "here", "--jobs", "2")
    waiting = {"samples: ", "train: "}
    for line in process.stderr:  # The samples are made beside the training, which shows progress.
        waiting -= {label for label in waiting if label in line}
        if not waiting:
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted; finished stages are kept" in rest
    assert "Traceback" not in rest
    store = Workspace(folder).store
    assert store.problems() == []
    assert len(list(store.root.iterdir())) == 3, (
        "the preflight, the untrained model and the samples"
    )
    edit(folder, "epochs: 1000", "epochs: 1")
    done = deploy(folder)
    assert done.returncode == 0
    assert "samples: cached" in done.stderr


def test_ctrl_c_while_measuring_keeps_the_rows_and_leaves_no_process(trained):
    edit(trained, "rounds: 1, min_seconds: 0.05", "rounds: 100, min_seconds: 100")
    edit(trained, "min_runs: 5", "min_runs: 500000")
    process = start(trained, "deploy", "tiny.yaml", "--device", "here")
    await_rounds(process, "here")
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "\ndense-f32 " in rest, "what is finished is printed"
    found = Workspace(trained).results()
    assert not found.finished
    assert [r.status for r in found.rows] == ["ok", "ok"]
    assert all(r.latency_ms.rounds < 100 for r in found.rows)
    assert not _agents(trained)


@pytest.mark.full
def test_two_runs_at_once_are_safe(folder):
    both = [start(folder, "deploy", "tiny.yaml", "--device", "here") for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert Workspace(folder).store.problems() == []
    assert len(Workspace(folder).run_ids()) == 2


def _agents(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            if str(folder / "work") in command:
                found.append(command)
    return found
