"""Multi-label classification: each sample has any number of labels; one output for each label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.tasks.regression import mean_outputs
from edgesparse.tasks.task import Array, Metric, Task, finite_samples


def task(resolved: Mapping[str, Any]) -> Task:
    """Build the task for targets of 0 or 1, [n, labels]. `resolved`: logits."""
    logits = bool(resolved.get("logits"))
    threshold = 0.0 if logits else 0.5

    def predict(outputs: Array) -> Array:
        return (outputs > threshold) & finite_samples(outputs)[:, None]

    def f1(outputs: Array, targets: Array) -> float:
        predicted, labels = predict(outputs), targets > 0.5
        hits = (predicted & labels).sum()
        return float(2 * hits / max(1, predicted.sum() + labels.sum()))

    def exact(outputs: Array, targets: Array) -> float:
        matches = (predict(outputs) == (targets > 0.5)).all(axis=1)
        return float(np.mean(matches & finite_samples(outputs)))

    metrics = (
        Metric("mAP", mean_average_precision, unit="%"),
        Metric("f1", f1, unit="%"),
        Metric("exact", exact, unit="%"),
    )
    return Task(
        "multi-label",
        lambda: _loss(logits),
        metrics,
        lambda: _keras_metrics(threshold),
        constant=mean_outputs,
    )


def _loss(logits: bool) -> Any:
    import tensorflow as tf

    return tf.keras.losses.BinaryCrossentropy(from_logits=logits)


def _keras_metrics(threshold: float) -> tuple[Any, ...]:
    import tensorflow as tf

    return (tf.keras.metrics.BinaryAccuracy("binary_accuracy", threshold=threshold),)


def mean_average_precision(outputs: Array, targets: Array) -> float:
    """Compute the mean, over labels that occur, of the area under the precision-recall curve."""
    from sklearn.metrics import average_precision_score

    values = np.where(np.isfinite(outputs), outputs, np.finfo(np.float32).min)
    labels = targets > 0.5
    precisions = [
        average_precision_score(labels[:, k], values[:, k])
        for k in range(labels.shape[1])
        if labels[:, k].any()
    ]
    return float(np.mean(precisions)) if precisions else 0.0
