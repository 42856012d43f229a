"""Export to MLflow: a run with a child run for each row."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from edgesparse.measure.results import Results
from edgesparse.report.tracking.figures import (
    curves,
    row_figures,
    row_name,
    row_settings,
    tracker_name,
)
from edgesparse.spec.errors import EdgesparseError, UsageError, missing_extra
from edgesparse.spec.pipeline import Tracking
from edgesparse.spec.safe.text import without_credentials

MAX_METRICS = 1000
"""MLflow's limit for a request."""
MAX_TEXT = 5000
"""Below MLflow's limit of 6000 characters for a parameter, 5000 for a tag."""


def write(results: Results, tracking: Tracking, folder: Path) -> str:
    """Log a run, its rows, learning curves, page and models. See `track`."""
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise missing_extra("'tracking: mlflow'", "MLflow", "tracking") from None
    # MLflow's default of 7 retries waits for minutes when the server is down.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    uri = tracking.uri or mlflow.get_tracking_uri()
    if "://" not in uri:
        raise UsageError("'tracking: mlflow' has no server; set its 'uri' or MLFLOW_TRACKING_URI")
    client = mlflow.MlflowClient(uri)
    try:
        return _log_results(client, results, tracking, folder, uri)
    except (MlflowException, OSError) as error:
        cause = without_credentials(str(error).splitlines()[0], "")[:300]
        server = without_credentials(uri, "")
        raise EdgesparseError(f"cannot log the run to MLflow at {server}: {cause}") from error


def _log_results(client: Any, results: Results, tracking: Tracking, folder: Path, uri: str) -> str:
    name = tracking.experiment or results.pipeline
    existing = client.get_experiment_by_name(name)
    experiment = existing.experiment_id if existing else client.create_experiment(name)
    tags = {
        "edgesparse.run": results.run,
        "mlflow.source.name": results.command[:MAX_TEXT],
        "mlflow.source.git.commit": results.commit.rstrip("+"),
        "mlflow.note.content": "\n".join(results.pipeline_source)[:MAX_TEXT],
    }
    parent = _create_run(client, experiment, results.run, {k: v for k, v in tags.items() if v})
    _log(
        client,
        parent,
        {
            "pipeline": results.pipeline,
            "baseline": results.baseline,
            "devices": ", ".join(device.name for device in results.devices),
            **{f"version {name}": version for name, version in results.versions.items()},
        },
        [
            (f"{tracker_name(training.label)}/{name}", value, epoch)
            for training in results.provenance.trainings
            for name, epoch, value in curves(training)
        ],
    )
    for row in results.rows:
        parent_tag = {"mlflow.parentRunId": parent}
        child = _create_run(client, experiment, row_name(results, row), parent_tag)
        figures = [(name, value, 0) for name, value in row_figures(row).items()]
        _log(client, child, row_settings(row), figures)
        if row.error:
            client.set_tag(child, "error", row.error[:MAX_TEXT])
        client.set_terminated(child, "FINISHED" if row.status == "ok" else "FAILED")
    for file in ("page.html", "results.json"):
        if (folder / file).is_file():
            client.log_artifact(parent, str(folder / file))
    if (folder / "models").is_dir():
        client.log_artifacts(parent, str(folder / "models"), "models")
    client.set_terminated(parent, "FAILED" if results.failed else "FINISHED")
    server = without_credentials(uri, "").rstrip("/")
    return f"{server}/#/experiments/{experiment}/runs/{parent}"


def _create_run(client: Any, experiment: str, name: str, tags: dict[str, str]) -> str:
    return str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)


def _log(
    client: Any, run: str, settings: dict[str, str], figures: list[tuple[str, float, int]]
) -> None:
    """Log settings as parameters, and figures (name, value, step) as metrics."""
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    params = [Param(tracker_name(name), text[:MAX_TEXT]) for name, text in settings.items()]
    metrics = [Metric(name, value, now, step) for name, value, step in figures]
    client.log_batch(run, params=params)
    for first in range(0, len(metrics), MAX_METRICS):
        client.log_batch(run, metrics=metrics[first : first + MAX_METRICS])
