"""Reconstruction: the model gives its input again; what it cannot give again is unusual.

With labels (0 usual, 1 unusual) in the test data it is anomaly detection, judged by the area under
the ROC curve of the error by sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.tasks.regression import WRONG, errors, mean_of, rmse
from edgesparse.tasks.task import Array, Metric, Task


def task(resolved: Mapping[str, Any]) -> Task:
    """Outputs and targets [n, ...] of one shape.

    `resolved`: peak, the largest value, for PSNR; labels: targets are [n, 1 + values], a label and
    then the input, flat.
    """
    peak = float(resolved.get("peak") or 1.0)

    def psnr(outputs: Array, targets: Array) -> float:
        squared = np.square(errors(outputs, targets)).mean()
        return float(max(-WRONG, min(200.0, 10 * np.log10(peak**2 / max(squared, 1e-20)))))

    constant = mean_of
    if resolved.get("labels"):
        constant = _same_error
        metrics = (
            Metric("auc", lambda outputs, targets: auc(outputs, targets[:, 1:], targets[:, 0])),
            Metric("rmse", lambda outputs, targets: rmse(outputs, targets[:, 1:]), "minimize"),
        )
    else:
        metrics = (Metric("rmse", rmse, "minimize"), Metric("psnr", psnr))
    return Task("reconstruction", lambda: "mse", metrics, lambda: ("mae",), constant=constant)


def _same_error(targets: Array) -> Array:
    return np.asarray(targets[:, 1:])


def auc(outputs: Array, targets: Array, unusual: Array) -> float:
    """How often an unusual sample has a larger error than a usual one; `unusual` 0 or 1 [n]. One
    half where all are of one kind."""
    from sklearn.metrics import roc_auc_score

    if len(np.unique(unusual)) < 2:
        return 0.5
    each = np.square(errors(outputs, targets)).mean(axis=1)
    return float(roc_auc_score(unusual, np.minimum(each, WRONG)))
