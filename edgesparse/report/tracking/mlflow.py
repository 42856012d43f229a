"""A run as one of MLflow's: each row a run below it, with its settings and figures."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from edgesparse.measure.results import Results
from edgesparse.report.tracking.figures import curves, numbers, plain, row_name, settings
from edgesparse.spec.errors import EdgesparseError, UsageError, missing_extra
from edgesparse.spec.pipeline import Tracking

_AT_ONCE = 1000
"""So many metrics a request may have."""
_TEXT = 5000


def write(results: Results, tracking: Tracking, folder: Path) -> str:
    """Write a run, its rows, learning curves, page and models. See `track`."""
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise missing_extra("'tracking: mlflow'", "MLflow", "tracking") from None
    # A run waits for a server that is down no longer than a person would.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    uri = tracking.uri or mlflow.get_tracking_uri()
    if "://" not in uri:
        raise UsageError(
            "'tracking: mlflow' names no server: give 'uri', or set MLFLOW_TRACKING_URI"
        )
    client = mlflow.MlflowClient(uri)
    try:
        return _written(client, results, tracking, folder, uri)
    except (MlflowException, OSError) as error:
        said = _shown(str(error).splitlines()[0])[:300]
        raise EdgesparseError(f"MLflow at {_shown(uri)} did not take the run: {said}") from error


def _written(client: Any, results: Results, tracking: Tracking, folder: Path, uri: str) -> str:
    name = tracking.experiment or results.pipeline
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name)
    tags = {
        "edgesparse.run": results.run,
        "mlflow.source.name": results.command[:_TEXT],
        "mlflow.source.git.commit": results.commit.rstrip("+"),
        "mlflow.note.content": "\n".join(results.pipeline_source)[:_TEXT],
    }
    whole = _run(client, experiment, results.run, {k: v for k, v in tags.items() if v})
    _log(
        client,
        whole,
        {
            "pipeline": results.pipeline,
            "baseline": results.baseline,
            "devices": ", ".join(device.name for device in results.devices),
            **{f"version {name}": version for name, version in results.versions.items()},
        },
        [
            (f"{plain(training.label)}/{name}", value, epoch)
            for training in results.provenance.trainings
            for name, epoch, value in curves(training)
        ],
    )
    for row in results.rows:
        below = {"mlflow.parentRunId": whole}
        own = _run(client, experiment, row_name(results, row), below)
        _log(client, own, settings(results, row), [(n, v, 0) for n, v in numbers(row).items()])
        if row.error:
            client.set_tag(own, "error", row.error[:_TEXT])
        client.set_terminated(own, "FINISHED" if row.status == "ok" else "FAILED")
    for file in ("page.html", "results.json"):
        if (folder / file).is_file():
            client.log_artifact(whole, str(folder / file))
    if (folder / "models").is_dir():
        client.log_artifacts(whole, str(folder / "models"), "models")
    client.set_terminated(whole, "FAILED" if results.failed else "FINISHED")
    return f"{_shown(uri).rstrip('/')}/#/experiments/{experiment}/runs/{whole}"


def _run(client: Any, experiment: str, name: str, tags: dict[str, str]) -> str:
    return str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)


def _log(
    client: Any, run: str, given: dict[str, str], figures: list[tuple[str, float, int]]
) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    params = [Param(plain(name), text[:_TEXT]) for name, text in given.items()]
    metrics = [Metric(name, value, now, step) for name, value, step in figures]
    client.log_batch(run, params=params)
    for first in range(0, len(metrics), _AT_ONCE):
        client.log_batch(run, metrics=metrics[first : first + _AT_ONCE])


def _shown(text: str) -> str:
    """Without passwords that URLs in it may have."""
    return re.sub(r"://[^/@\s]*@", "://", text)
