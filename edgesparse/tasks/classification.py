"""Classification: each sample has one of several classes.

The model outputs a value for each class, probabilities or logits, or one value for the second of
two classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.tasks.task import Array, Metric, Task, finite_samples, mean, of_each

MAX_CONFUSION = 100
"""Classes of the largest confusion matrix in results: a larger one fits no page."""


def task(resolved: Mapping[str, Any]) -> Task:
    """Build the task for outputs [n, classes], or [n, 1] for two classes.

    `resolved`: classes (names), binary (one output), logits, one_hot (targets), top_k.
    """
    binary, logits, one_hot = (bool(resolved.get(k)) for k in ("binary", "logits", "one_hot"))
    count, top_k = len(resolved["classes"]), int(resolved.get("top_k") or 5)
    threshold = 0.0 if logits else 0.5

    def predict(outputs: Array) -> Array:
        values = outputs.reshape(len(outputs), -1)
        classes = values[:, 0] > threshold if binary else values.argmax(axis=1)
        # NaN is never correct: argmax would take it for the highest.
        return np.where(finite_samples(outputs), classes.astype(np.int64), -1)

    def labels_of(targets: Array) -> Array:
        return targets.argmax(axis=1) if one_hot else targets.reshape(len(targets)).astype(np.int64)

    def correct(outputs: Array, targets: Array) -> Array:
        return predict(outputs) == labels_of(targets)

    def top_k_accuracy(outputs: Array, targets: Array) -> float:
        values = outputs.reshape(len(outputs), -1)
        best = np.argsort(-values, axis=1, kind="stable")[:, :top_k]
        correct = (best == labels_of(targets)[:, None]).any(axis=1) & finite_samples(outputs)
        return float(correct.mean())

    def f1(outputs: Array, targets: Array) -> float:
        return macro_f1(confusion(predict(outputs), labels_of(targets), count))

    def details(outputs: Array, targets: Array) -> dict[str, Any]:
        matrix = confusion(predict(outputs), labels_of(targets), count)
        recall = matrix.diagonal() / np.maximum(1, matrix.sum(axis=1))
        entries: dict[str, Any] = {"recall": recall.round(6).tolist()}
        if count <= MAX_CONFUSION:
            entries["confusion"] = matrix.tolist()
        return entries

    def constant(targets: Array) -> Array:
        mode = int(np.bincount(labels_of(targets), minlength=count).argmax())
        row = np.array([[2.0 * mode - 1]]) if binary else np.eye(count)[[mode]]
        return np.repeat(row, len(targets), axis=0)

    metrics = [of_each("accuracy", correct, mean, unit="%"), Metric("f1", f1, unit="%")]
    if not binary and count > top_k:
        metrics.insert(1, Metric(f"top-{top_k}", top_k_accuracy, unit="%"))
    return Task(
        "classification",
        lambda: _loss(binary, one_hot, logits),
        tuple(metrics),
        lambda: _keras_metrics(binary, one_hot, logits),
        details,
        constant=constant,
    )


def _loss(binary: bool, one_hot: bool, logits: bool) -> Any:
    import tensorflow as tf

    losses = tf.keras.losses
    if binary:
        return losses.BinaryCrossentropy(from_logits=logits)
    if one_hot:
        return losses.CategoricalCrossentropy(from_logits=logits)
    return losses.SparseCategoricalCrossentropy(from_logits=logits)


def _keras_metrics(binary: bool, one_hot: bool, logits: bool) -> tuple[Any, ...]:
    import tensorflow as tf

    metrics = tf.keras.metrics
    if binary:
        return (metrics.BinaryAccuracy("accuracy", threshold=0.0 if logits else 0.5),)
    kind = metrics.CategoricalAccuracy if one_hot else metrics.SparseCategoricalAccuracy
    return (kind("accuracy"),)


def confusion(predicted: Array, labels: Array, classes: int) -> Array:
    """Count, int64 [classes, classes], how often each class (row) was predicted as each (column).

    Predictions outside of 0 to classes - 1 count nowhere.
    """
    valid = (predicted >= 0) & (predicted < classes)
    cells = labels[valid] * classes + predicted[valid]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def macro_f1(matrix: Array) -> float:
    """Compute the mean F1 score, over classes that occur, from a confusion matrix."""
    hits = matrix.diagonal()
    sizes = matrix.sum(axis=0) + matrix.sum(axis=1)
    occur = matrix.sum(axis=1) > 0
    return float(np.mean(2 * hits[occur] / np.maximum(1, sizes[occur]))) if occur.any() else 0.0
