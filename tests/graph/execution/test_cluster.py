"""A Dask cluster carries stages out: the same results, whatever is lost on the way."""

import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

import edgesparse
from edgesparse.graph import events
from edgesparse.graph.execution import cluster
from edgesparse.graph.store import Store
from edgesparse.spec.errors import UsageError
from edgesparse.spec.reading.load import parse_pipeline
from tests.conftest import HERE, TINY, require
from tests.devices.ondevice.test_detached import await_end
from tests.graph.execution.test_scheduler import WIDER, artifacts
from tests.graph.test_shared_store import bucket, s3_server
from tests.tools.dasks import Dask
from tests.tools.sshd import descendants

pytestmark = pytest.mark.slow
__all__ = ["s3_server"]


def project(folder, text=WIDER):
    (folder / "devices").mkdir(parents=True)
    here = HERE.replace("workdir: work", f"workdir: {folder / 'work'}")
    (folder / "devices" / "here.yaml").write_text(here)
    return parse_pipeline(text, str(folder / "tiny.yaml"))


def run(loaded, folder, address=None, listener=events.null_listener):
    return edgesparse.deploy(
        loaded, ["here"], benchmark=False, cluster=address, project=folder, listener=listener
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory, workers):
    """What this machine makes by itself."""
    folder = tmp_path_factory.mktemp("alone")
    with edgesparse.Project(folder, workers=workers) as opened:
        opened.deploy(project(folder), ["here"], benchmark=False)
    return artifacts(folder)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, about in expected.items():
        for name, file in about["files"].items():
            if name.endswith(".tflite"):
                assert found[key]["files"][name]["sha256"] == file["sha256"]


@pytest.mark.full
def test_a_worker_makes_the_same_and_says_how_far_it_is(alone, tmp_path):
    received = []
    with Dask(tmp_path) as dask:
        dask.start_worker("only")
        results = run(project(tmp_path), tmp_path, dask.address, received.append)
        # Its TensorFlow ends with the run.
        assert descendants(dask.workers[0].pid) == []
        # Nothing is done twice.
        again = []
        run(project(tmp_path / "again"), tmp_path, dask.address, again.append)
    assert not results.failed
    assert_same(artifacts(tmp_path), alone)
    progress = [e for e in received if isinstance(e, events.StageProgress)]
    assert any(e.label.startswith("train") and 0 < e.share <= 1 for e in progress)
    assert all(e.cached for e in again if isinstance(e, events.StageDone) and e.total > 1)


@pytest.mark.full
def test_lost_workers_and_a_scheduler_that_is_started_anew_lose_nothing(alone, tmp_path):
    lost = []
    with Dask(tmp_path) as dask:
        dask.start_worker("first")
        changes = threading.Lock()

        def disturb(event):
            """Kill in the middle of work: each time whoever is at it, at the end the scheduler."""
            begun = isinstance(event, events.StageProgress) and event.label not in lost
            if not begun or len(lost) == 3 or not changes.acquire(blocking=False):
                return
            lost.append(event.label)
            number = len(lost)
            dask.start_worker(f"next-{number}")
            dask.kill(dask.workers[-2])
            if number == 3:
                dask.kill(dask.scheduler)
                dask.kill(dask.workers[-1])
                dask.start_scheduler()
                dask.start_worker("last")
            changes.release()

        text = WIDER.replace("epochs: 1}", "epochs: 3}")
        results = run(
            project(tmp_path / "project", text), tmp_path / "project", dask.address, disturb
        )
    assert len(lost) >= 2
    assert not results.failed
    assert len(artifacts(tmp_path / "project")) == len(alone)


@pytest.mark.full
def test_a_worker_without_our_folder_uses_the_shared_store(alone, tmp_path, s3_server):
    require(os.geteuid() == 0, "root, to hide a folder from a worker")
    folder = tmp_path / "project"
    shared = WIDER.replace("name: tiny", f"name: tiny\nstore: {bucket(s3_server)}/models", 1)
    plain = project(folder)
    with Dask(tmp_path) as dask:
        hidden = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {folder}; exec "$@"', "-"]
        dask.start_worker("far", *hidden)
        failed = run(plain, folder, dask.address)
        assert "has no access to" in " ".join(row.error or "" for row in failed.rows)
        loaded = parse_pipeline(shared, str(folder / "tiny.yaml"))
        results = run(loaded, folder, str(dask.file))
        assert not results.failed
        result = artifacts(folder)
        assert_same({k: v for k, v in result.items() if k in alone}, {k: alone[k] for k in result})
        # Another machine gets everything from there.
        other = tmp_path / "other"
        project(other)
        received = []
        run(parse_pipeline(shared, str(other / "tiny.yaml")), other, None, received.append)
    done = [e for e in received if isinstance(e, events.StageDone) and e.total > 1]
    created = [e.label for e in done if not e.cached]
    assert all(label.startswith("verify") for label in created), "devices are asked anew"


@pytest.mark.full
def test_an_interrupt_ends_at_once_and_leaves_no_process(tmp_path):
    project(tmp_path)
    (tmp_path / "tiny.yaml").write_text(WIDER.replace("epochs: 1,", "epochs: 2000,"))
    with Dask(tmp_path) as dask:
        dask.start_worker("only")
        command = [sys.executable, "-m", "edgesparse", "run", "tiny.yaml"]
        with subprocess.Popen(
            [*command, "--cluster", dask.address],
            cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            for line in process.stderr:
                if "train: " in line and "epoch" in line:
                    break
            below = descendants(process.pid)
            # As Ctrl-C, which whoever starts tests in the background has switched off.
            process.send_signal(signal.SIGTERM)
            errors = process.stderr.read()
        assert process.returncode == 130
        assert "finished stages are kept" in errors
        assert "Traceback" not in errors
        await_end(below)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("local:4", "file not found"),
        ("tcp://127.0.0.1:1", "no answer from a scheduler"),
    ],
)
def test_an_invalid_cluster_is_an_error(tmp_path, monkeypatch, address, said):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with pytest.raises(UsageError, match=said):
        run(project(tmp_path, TINY), tmp_path, address)


def test_a_worker_that_has_a_copy_of_the_project_is_not_taken_for_one_that_sees_it(tmp_path):
    require(os.geteuid() == 0, "root, to show a worker another folder")
    folder, copy = tmp_path / "project", tmp_path / "copy"
    loaded = project(folder, TINY)
    store = Store(folder / ".edgesparse" / "store")
    with Dask(tmp_path) as dask:
        # Copied while its own machine works with it.
        opened = cluster.DaskCluster(dask.address)
        mark = opened._mark(store)
        shutil.copytree(folder, copy)
        opened.close()
        assert (copy / ".edgesparse" / "store" / mark).exists()
        assert not (store.root / mark).exists()
        bound = f'mount --bind {copy} {folder}; exec "$@"'
        dask.start_worker("other", "unshare", "--mount", "sh", "-c", bound, "-")
        failed = run(loaded, folder, dask.address)
    assert "has no access to" in " ".join(row.error or "" for row in failed.rows)
