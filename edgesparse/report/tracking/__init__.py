"""Export of runs to experiment trackers: MLflow, TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgesparse.measure.results import Results
from edgesparse.spec.code.references import choose
from edgesparse.spec.errors import require_extra
from edgesparse.spec.pipeline import Tracking

_LIBRARIES = {"mlflow": "MLflow", "tensorboard": "TensorBoard"}


def track(results: Results, to: str | Tracking, folder: str | Path) -> str:
    """Write a run to a tracker.

    Args:
        to: "mlflow", "tensorboard" or the name of an installed plug-in, whose entry point in the
            group edgesparse.trackers is a function like `mlflow.write`; or an entry of a pipeline's
            `tracking`.
        folder: the run's folder, with its page and models.

    Returns:
        The address or folder to open in the tracker.

    Raises:
        UsageError: unknown tracker, its package is not installed, or no server is configured.
        EdgesparseError: the server is unreachable or rejects the run.
    """
    from edgesparse.report.tracking import mlflow, tensorboard

    settings = Tracking(name=to) if isinstance(to, str) else to
    builtin = {"mlflow": mlflow.write, "tensorboard": tensorboard.write}
    write = choose("trackers", settings.name, builtin)
    return str(write(results, settings, Path(folder)))


def require_trackers(tracking: Sequence[Tracking]) -> None:
    """Check that the libraries of trackers are installed, before a run whose results they get.

    Raises:
        UsageError: one is not installed.
    """
    for tracker in tracking:
        if tracker.name in _LIBRARIES:
            what = f"'tracking: {tracker.name}'"
            require_extra(what, _LIBRARIES[tracker.name], tracker.name, "tracking")
