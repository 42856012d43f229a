"""Multi-label classification: each sample has any number of labels; one output for each label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.tasks.regression import mean_of
from edgesparse.tasks.task import Array, Metric, Task, finite


def task(resolved: Mapping[str, Any]) -> Task:
    """`resolved`: logits. Targets are 0 or 1, [n, labels]."""
    logits = bool(resolved.get("logits"))
    threshold = 0.0 if logits else 0.5

    def chosen(outputs: Array) -> Array:
        return (outputs > threshold) & finite(outputs)[:, None]

    def f1(outputs: Array, targets: Array) -> float:
        found, wanted = chosen(outputs), targets > 0.5
        hits = (found & wanted).sum()
        return float(2 * hits / max(1, found.sum() + wanted.sum()))

    def exact(outputs: Array, targets: Array) -> float:
        return float(np.mean((chosen(outputs) == (targets > 0.5)).all(axis=1) & finite(outputs)))

    metrics = (
        Metric("mAP", mean_average_precision, unit="%"),
        Metric("f1", f1, unit="%"),
        Metric("exact", exact, unit="%"),
    )
    return Task(
        "multi-label",
        lambda: _loss(logits),
        metrics,
        lambda: _watched(threshold),
        constant=mean_of,
    )


def _loss(logits: bool) -> Any:
    import tensorflow as tf

    return tf.keras.losses.BinaryCrossentropy(from_logits=logits)


def _watched(threshold: float) -> tuple[Any, ...]:
    import tensorflow as tf

    return (tf.keras.metrics.BinaryAccuracy("binary_accuracy", threshold=threshold),)


def mean_average_precision(outputs: Array, targets: Array) -> float:
    """The mean over labels that occur of the area under precision against recall."""
    from sklearn.metrics import average_precision_score

    values = np.where(np.isfinite(outputs), outputs, np.finfo(np.float32).min)
    wanted = targets > 0.5
    found = [
        average_precision_score(wanted[:, k], values[:, k])
        for k in range(wanted.shape[1])
        if wanted[:, k].any()
    ]
    return float(np.mean(found)) if found else 0.0
