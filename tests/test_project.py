"""A project keeps what its commands open, and ends it; the same commands as functions."""

import inspect
import os

import pytest

import edgesparse
from edgesparse.graph import events
from edgesparse.spec.errors import UsageError
from edgesparse.spec.reading.load import parse_pipeline
from edgesparse.stages.base.stage import PlanContext
from tests.conftest import HERE, ROOT, TINY
from tests.devices.ondevice.test_detached import await_end
from tests.graph.execution.test_worker import PARTS

ADD = "tests.graph.execution.tasks:add"
CONTEXT = PlanContext(parse_pipeline(TINY, str(ROOT / "tiny.yaml")))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "devices").mkdir()
    here = HERE.replace("workdir: work", f"workdir: {tmp_path / 'work'}")
    (tmp_path / "devices" / "here.yaml").write_text(here)
    return tmp_path


def worker_of(project, log):
    """The process that runs stages."""
    return project.workers(log).call(ADD, CONTEXT, PARTS, 1, 1)[1]


@pytest.mark.slow
def test_processes_and_connections_live_as_long_as_the_project(folder, tflite_files):
    heard = []
    with edgesparse.Project(folder, listener=heard.append, jobs=1) as project:
        first = worker_of(project, folder / "first.txt")
        assert worker_of(project, folder / "second.txt") == first != os.getpid()
        assert "said while adding" in (folder / "second.txt").read_text()
        results = [
            project.bench(tflite_files[name], "here", quick=True) for name in ("dense", "int8")
        ]
        with project.target("here") as target:
            connected = target
        with project.target("here") as target:
            assert target is connected
    assert [results.rows[0].status for results in results] == ["ok", "ok"]
    assert project.run_ids() == [run.run for run in results]
    assert project.results() == results[-1]
    assert sum(isinstance(event, events.StageDone) for event in heard) == 2
    await_end([first])
    # What brought it is gone, and nothing of it is left on the device.
    assert not list((folder / "work" / "files").iterdir())
    with project.target("here") as target:
        assert target is not connected, "closed, and opened again"
    project.close()


def test_a_project_is_closed_on_errors(folder):
    pids = []

    def fails():
        with edgesparse.Project(folder, jobs=1) as project:
            pids.append(worker_of(project, folder / "log.txt"))
            project.bench("none.tflite", "here")

    with pytest.raises(UsageError, match="no such file"):
        fails()
    await_end(pids)


def test_workers_that_several_projects_share_are_not_ended(folder, workers):
    with edgesparse.Project(folder, workers=workers) as project:
        pid = worker_of(project, folder / "log.txt")
    assert workers.call(ADD, CONTEXT, PARTS, 1, 1)[1] == pid


def test_each_command_is_a_function_too():
    for name in ("deploy", "plan", "search", "compress", "inspect", "encode", "compare"):
        command, method = getattr(edgesparse, name), getattr(edgesparse.Project, name)
        taken = list(inspect.signature(command).parameters)
        assert taken == [
            *list(inspect.signature(method).parameters)[1:],
            "project", "listener", "jobs", "cluster",
        ]  # fmt: skip
        assert command.__doc__ == method.__doc__
    with pytest.raises(UsageError, match="--jobs 0"):
        edgesparse.plan("any.yaml", jobs=0)


def test_a_store_may_be_shared_by_projects(tmp_path, monkeypatch):
    assert edgesparse.Project(tmp_path).workspace().store_folder == tmp_path / ".edgesparse/store"
    monkeypatch.setenv("EDGESPARSE_STORE", str(tmp_path / "artifacts"))
    for name in ("one", "two"):
        workspace = edgesparse.Project(tmp_path / name).workspace()
        assert workspace.store.root == tmp_path / "artifacts" / "store"
        assert workspace.runs == tmp_path / name / ".edgesparse" / "runs"
