"""Results where people already look at theirs: MLflow, TensorBoard."""

from __future__ import annotations

from pathlib import Path

from edgesparse.measure.results import Results
from edgesparse.spec.pipeline import Tracking


def track(results: Results, to: str | Tracking, folder: str | Path) -> str:
    """Write a run to a tracker.

    Args:
        to: "mlflow" or "tensorboard", or what a pipeline says under `tracking`.
        folder: the run's, with its page and models.

    Returns:
        Where it is to be looked at.

    Raises:
        UsageError: its package is not installed, or no server is named.
        EdgesparseError: the server does not take it.
    """
    from edgesparse.report.tracking import mlflow, tensorboard

    given = Tracking(name=to) if isinstance(to, str) else to
    write = {"mlflow": mlflow.write, "tensorboard": tensorboard.write}[given.name]
    return write(results, given, Path(folder))
