"""Reconstruction: the model outputs its input; a large error marks an anomaly.

With labels (0 normal, 1 anomaly) in the test data it is anomaly detection, evaluated by the area
under the ROC curve of the error by sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.tasks.regression import NON_FINITE_ERROR, mean_outputs, root_mean, squared_errors
from edgesparse.tasks.task import Array, Task, of_each

_MAX_PSNR = 200.0
_MIN_SQUARED_ERROR = 1e-20
"""Bounds of an exact reconstruction's PSNR, which is infinite otherwise; in dB."""


def task(resolved: Mapping[str, Any]) -> Task:
    """Build the task for outputs and targets [n, ...] of one shape.

    `resolved`: peak, the largest value, for PSNR; labels: targets are [n, 1 + values], a label and
    then the flat input.
    """
    peak = float(resolved.get("peak") or 1.0)

    def psnr(squared: Array) -> float:
        ratio = peak**2 / max(squared.mean(), _MIN_SQUARED_ERROR)
        return float(max(-NON_FINITE_ERROR, min(_MAX_PSNR, 10 * np.log10(ratio))))

    def labelled(outputs: Array, targets: Array) -> Array:
        """Return the squared error and the label of each sample, [n, 2]."""
        return np.stack([squared_errors(outputs, targets[:, 1:]), targets[:, 0]], axis=1)

    constant = mean_outputs
    if resolved.get("labels"):
        constant = _exact_outputs
        metrics = (
            of_each("auc", labelled, lambda each: auc(each[:, 0], each[:, 1])),
            of_each("rmse", labelled, lambda each: root_mean(each[:, 0]), "minimize"),
        )
    else:
        metrics = (
            of_each("rmse", squared_errors, root_mean, "minimize"),
            of_each("psnr", squared_errors, psnr),
        )
    return Task("reconstruction", lambda: "mse", metrics, lambda: ("mae",), constant=constant)


def _exact_outputs(targets: Array) -> Array:
    """Return the inputs themselves: every sample has the same error."""
    return np.asarray(targets[:, 1:])


def auc(squared: Array, anomalies: Array) -> float:
    """Compute the area under the ROC curve of the errors of samples [n], from their ranks (Mann and
    Whitney 1947); 0.5 if all samples have one label.

    Args:
        anomalies: 0 or 1, [n].
    """
    from scipy.stats import rankdata

    positive = anomalies > 0.5
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return 0.5
    ranks = rankdata(np.minimum(squared, NON_FINITE_ERROR))
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))
