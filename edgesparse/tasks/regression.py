"""Regression: numbers, close to other numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.tasks.task import Array, Metric, Task

WRONG = 1e15
"""The error of what is no number."""


def task(resolved: Mapping[str, Any]) -> Task:
    """Outputs and targets [n, ...] of one shape, or targets [n] for outputs [n, 1]."""
    metrics = (
        Metric("mae", mae, "minimize"),
        Metric("rmse", rmse, "minimize"),
        Metric("r2", r2),
    )
    return Task("regression", lambda: "mse", metrics, lambda: ("mae",), constant=mean_of)


def mean_of(targets: Array) -> Array:
    """For every sample the mean of all."""
    return np.repeat(targets.mean(axis=0, keepdims=True), len(targets), axis=0)


def errors(outputs: Array, targets: Array) -> Array:
    """Differences, float64 [n, values]."""
    found = outputs.reshape(len(outputs), -1).astype(np.float64)
    wanted = targets.reshape(len(targets), -1).astype(np.float64)
    return np.where(np.isfinite(found), found - wanted, WRONG)


def mae(outputs: Array, targets: Array) -> float:
    """Mean absolute error."""
    return float(min(WRONG, np.abs(errors(outputs, targets)).mean()))


def rmse(outputs: Array, targets: Array) -> float:
    """Root of the mean squared error."""
    return float(min(WRONG, np.sqrt(np.square(errors(outputs, targets)).mean())))


def r2(outputs: Array, targets: Array) -> float:
    """The share of the targets' variance that is explained; 1 is all of it."""
    wanted = targets.reshape(len(targets), -1).astype(np.float64)
    total = np.square(wanted - wanted.mean(axis=0)).sum()
    left = np.square(errors(outputs, targets)).sum()
    return float(max(-WRONG, 1 - left / total)) if total else 0.0
