"""Export to TensorBoard's event files: learning curves by epoch, and each row's figures."""

from __future__ import annotations

from pathlib import Path

from edgesparse.measure.results import Results
from edgesparse.report.tracking.figures import curves, row_figures, row_name, tracker_name
from edgesparse.spec.errors import missing_extra
from edgesparse.spec.pipeline import Tracking


def write(results: Results, tracking: Tracking, folder: Path) -> str:
    """Write event files below `folder` or the folder `uri`. See `track`."""
    try:
        from tensorboard.summary import Writer
    except ImportError:
        raise missing_extra("'tracking: tensorboard'", "TensorBoard", "tracking") from None
    root = Path(tracking.uri) / results.run if tracking.uri else folder / "tensorboard"
    for training in results.provenance.trainings:
        writer = Writer(str(root / tracker_name(training.label)))
        for name, epoch, value in curves(training):
            writer.add_scalar(name, value, step=epoch)
        writer.close()
    for row in results.rows:
        writer = Writer(str(root / tracker_name(row_name(results, row))))
        for name, value in row_figures(row).items():
            writer.add_scalar(f"figures/{name}", value, step=0)
        writer.close()
    return f"{root} (tensorboard --logdir {root})"
