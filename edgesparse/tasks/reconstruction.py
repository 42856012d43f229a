"""Reconstruction: the model outputs its input; a large error marks an anomaly.

With labels (0 normal, 1 anomaly) in the test data it is anomaly detection, evaluated by the area
under the ROC curve of the error by sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.tasks.regression import NON_FINITE_ERROR, errors, mean_outputs, rmse
from edgesparse.tasks.task import Array, Metric, Task

_MAX_PSNR = 200.0
_MIN_SQUARED_ERROR = 1e-20
"""Bounds of an exact reconstruction's PSNR, which is infinite otherwise; in dB."""


def task(resolved: Mapping[str, Any]) -> Task:
    """Build the task for outputs and targets [n, ...] of one shape.

    `resolved`: peak, the largest value, for PSNR; labels: targets are [n, 1 + values], a label and
    then the flat input.
    """
    peak = float(resolved.get("peak") or 1.0)

    def psnr(outputs: Array, targets: Array) -> float:
        squared = max(np.square(errors(outputs, targets)).mean(), _MIN_SQUARED_ERROR)
        return float(max(-NON_FINITE_ERROR, min(_MAX_PSNR, 10 * np.log10(peak**2 / squared))))

    constant = mean_outputs
    if resolved.get("labels"):
        constant = _exact_outputs
        metrics = (
            Metric("auc", lambda outputs, targets: auc(outputs, targets[:, 1:], targets[:, 0])),
            Metric("rmse", lambda outputs, targets: rmse(outputs, targets[:, 1:]), "minimize"),
        )
    else:
        metrics = (Metric("rmse", rmse, "minimize"), Metric("psnr", psnr))
    return Task("reconstruction", lambda: "mse", metrics, lambda: ("mae",), constant=constant)


def _exact_outputs(targets: Array) -> Array:
    """Return the inputs themselves: every sample has the same error."""
    return np.asarray(targets[:, 1:])


def auc(outputs: Array, targets: Array, anomalies: Array) -> float:
    """Compute the area under the ROC curve of the error; 0.5 if all samples have one label.

    Args:
        outputs, targets: [n, values].
        anomalies: 0 or 1, [n].
    """
    from sklearn.metrics import roc_auc_score

    if len(np.unique(anomalies)) < 2:
        return 0.5
    squared = np.square(errors(outputs, targets)).mean(axis=1)
    return float(roc_auc_score(anomalies, np.minimum(squared, NON_FINITE_ERROR)))
