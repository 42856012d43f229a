"""Runs in a real MLflow server, and in files that TensorBoard reads."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from edgesparse.measure.training_details import Provenance, Training
from edgesparse.report.tracking import require_trackers, track
from edgesparse.report.tracking.figures import tracker_name
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Tracking
from tests.report.test_table import results, row
from tests.tools.sshd import free_port

PROVENANCE = Provenance(
    trainings=[
        Training(
            label="train",
            variants=["dense-f32"],
            history={"loss": [1.0, 0.5], "val_accuracy": [0.8, None]},
        )
    ]
)
RUN = results(
    row("dense-f32", 2.0),
    row("sparse <b>", 1.0, 1.9, 2.1),
    row("broken", error="the runtime crashed"),
    provenance=PROVENANCE,
    pipeline_source=["name: p"],
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "dense-f32.tflite").write_bytes(b"model")
    (tmp_path / "page.html").write_text("<p>page</p>")
    (tmp_path / "results.json").write_text("{}")
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{root}/runs.db",
        "--artifacts-destination", str(root / "artifacts"),
    ]  # fmt: skip
    with (root / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            while process.poll() is None:
                try:
                    with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
                        if answer.status == 200:
                            break
                except OSError:
                    continue
            assert process.poll() is None, (root / "log.txt").read_text()[-2000:]
            yield address
        finally:
            os.killpg(process.pid, 9)
            process.wait()


@pytest.mark.full
@pytest.mark.slow
def test_mlflow_has_rows_curves_and_files(server, folder):
    import mlflow

    where = track(RUN, Tracking(name="mlflow", uri=server, experiment="mine"), folder)
    assert where.startswith(f"{server}/#/experiments/")
    client = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("mine").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    whole = runs.pop(RUN.run)
    assert whole.info.run_id in where
    assert whole.data.params["baseline"] == "dense-f32"
    curve = client.get_metric_history(whole.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 1.0), (2, 0.5)]
    assert set(runs) == {f"{name} ai-edge-litert" for name in ("dense-f32", "sparse <b>", "broken")}
    sparse = runs["sparse <b> ai-edge-litert"]
    assert sparse.data.metrics["p50_ms"] == 1.0
    assert sparse.data.metrics["speedup"] == 2.0
    assert sparse.data.params["runtime"] == "ai-edge-litert 2.1.6"
    assert sparse.data.tags["mlflow.parentRunId"] == whole.info.run_id
    broken = runs["broken ai-edge-litert"]
    assert (broken.info.status, broken.data.tags["error"]) == ("FAILED", "the runtime crashed")
    files = {file.path for file in client.list_artifacts(whole.info.run_id)}
    assert files == {"page.html", "results.json", "models"}
    got = client.download_artifacts(whole.info.run_id, "models/dense-f32.tflite", str(folder))
    assert Path(got).read_bytes() == b"model"
    # A second run of the same pipeline goes into the same experiment.
    track(RUN, Tracking(name="mlflow", uri=server, experiment="mine"), folder)
    assert len(client.search_runs([experiment])) == 8


def test_unreachable_server_is_an_error_without_the_password(folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracking = Tracking(name="mlflow", uri="http://me:secret@127.0.0.1:9")
    with pytest.raises(
        EdgesparseError, match=r"cannot log the run to MLflow at http://127\.0\.0\.1:9: "
    ) as caught:
        track(RUN, tracking, folder)
    assert "secret" not in str(caught.value)


def test_missing_server_is_an_error(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "runs")
    with pytest.raises(UsageError, match="has no server"):
        track(RUN, "mlflow", folder)


@pytest.mark.slow
def test_tensorboard_reads_the_event_files(folder):
    where = track(RUN, "tensorboard", folder)
    root = folder / "tensorboard"
    assert str(root) in where
    # In a process of its own: TensorFlow would keep tflite-runtime out of this one.
    code = (
        "import json, sys; "
        "from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer as M; "
        "m = M().AddRunsFromDirectory(sys.argv[1]); m.Reload(); "
        "print(json.dumps({r: {t: [e.step for e in m.Tensors(r, t)] for t in tags['tensors']}"
        " for r, tags in m.Runs().items()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True
    )
    steps = json.loads(done.stdout)
    assert steps["train"]["loss"] == [1, 2]
    assert steps["train"]["val_accuracy"] == [1]
    assert "figures/p50_ms" in steps["dense-f32 ai-edge-litert"]
    shutil.rmtree(root)


def test_names_fit_every_tracker():
    assert tracker_name("sparse <b> 50 %") == "sparse _b_ 50 _"


def test_a_tracker_without_its_library_is_an_error_before_the_run(monkeypatch):
    trackers = [Tracking(name="mlflow"), Tracking(name="a-plug-in")]
    require_trackers(trackers[1:])
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match="requires MLflow, which is not installed: pip install"):
        require_trackers(trackers)
