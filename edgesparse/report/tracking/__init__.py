"""Results where people already look at theirs: MLflow, TensorBoard."""

from __future__ import annotations

from pathlib import Path

from edgesparse.measure.results import Results
from edgesparse.spec.code.references import choose
from edgesparse.spec.pipeline import Tracking


def track(results: Results, to: str | Tracking, folder: str | Path) -> str:
    """Write a run to a tracker.

    Args:
        to: "mlflow", "tensorboard" or the name of an installed plug-in, whose entry point in the
            group edgesparse.trackers is a function like `mlflow.write`; or what a pipeline has
            under `tracking`.
        folder: the run's, with its page and models.

    Returns:
        Where it is to be looked at.

    Raises:
        UsageError: unknown tracker, its package is not installed, or no server is named.
        EdgesparseError: the server does not take it.
    """
    from edgesparse.report.tracking import mlflow, tensorboard

    settings = Tracking(name=to) if isinstance(to, str) else to
    builtin = {"mlflow": mlflow.write, "tensorboard": tensorboard.write}
    write = choose("trackers", settings.name, builtin)
    return str(write(results, settings, Path(folder)))
