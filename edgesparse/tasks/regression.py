"""Regression: outputs are numbers, close to target numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.tasks.task import Array, Metric, Task, mean, of_each

NON_FINITE_ERROR = 1e15
"""The error of an output that is NaN or inf: above any real error, and its mean is still finite."""


def task(resolved: Mapping[str, Any]) -> Task:
    """Build the task for outputs and targets [n, ...] of one shape, or outputs [n, 1] and targets
    [n]."""
    metrics = (
        of_each("mae", absolute_errors, mean, "minimize"),
        of_each("rmse", squared_errors, root_mean, "minimize"),
        Metric("r2", r2),
    )
    return Task("regression", lambda: "mse", metrics, lambda: ("mae",), constant=mean_outputs)


def mean_outputs(targets: Array) -> Array:
    """Return the mean of all targets for every sample."""
    return np.repeat(targets.mean(axis=0, keepdims=True), len(targets), axis=0)


def errors(outputs: Array, targets: Array) -> Array:
    """Return outputs - targets, float64 [n, values]."""
    flat = outputs.reshape(len(outputs), -1).astype(np.float64)
    expected = targets.reshape(len(targets), -1).astype(np.float64)
    return np.where(np.isfinite(flat), flat - expected, NON_FINITE_ERROR)


def absolute_errors(outputs: Array, targets: Array) -> Array:
    """Return the mean absolute error of each sample, [n]."""
    return np.minimum(NON_FINITE_ERROR, np.abs(errors(outputs, targets)).mean(axis=1))


def squared_errors(outputs: Array, targets: Array) -> Array:
    """Return the mean squared error of each sample, [n]."""
    return np.square(errors(outputs, targets)).mean(axis=1)


def root_mean(squared: Array) -> float:
    """Return the root of the mean of squared errors."""
    return float(min(NON_FINITE_ERROR, np.sqrt(squared.mean())))


def r2(outputs: Array, targets: Array) -> float:
    """Compute the coefficient of determination: the explained share of the targets' variance."""
    expected = targets.reshape(len(targets), -1).astype(np.float64)
    total = np.square(expected - expected.mean(axis=0)).sum()
    residual = np.square(errors(outputs, targets)).sum()
    return float(max(-NON_FINITE_ERROR, 1 - residual / total)) if total else 0.0
