"""Classification: each sample has one of several classes.

The model gives a value for each class, probabilities or logits, or one value for the second of two
classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.tasks.task import Array, Metric, Task, finite

MAX_CONFUSION = 100
"""From so many classes on a confusion matrix is no longer kept."""


def task(resolved: Mapping[str, Any]) -> Task:
    """`resolved`: classes (names), binary (one output), logits, one_hot (targets), top_k."""
    binary, logits, one_hot = (bool(resolved.get(k)) for k in ("binary", "logits", "one_hot"))
    count, top = len(resolved["classes"]), int(resolved.get("top_k") or 5)
    threshold = 0.0 if logits else 0.5

    def chosen(outputs: Array) -> Array:
        values = outputs.reshape(len(outputs), -1)
        found = values[:, 0] > threshold if binary else values.argmax(axis=1)
        # What is no number is never right: argmax would take it for the highest.
        return np.where(finite(outputs), found.astype(np.int64), -1)

    def wanted(targets: Array) -> Array:
        return targets.argmax(axis=1) if one_hot else targets.reshape(len(targets)).astype(np.int64)

    def accuracy(outputs: Array, targets: Array) -> float:
        return float(np.mean(chosen(outputs) == wanted(targets)))

    def within(outputs: Array, targets: Array) -> float:
        best = np.argsort(-outputs.reshape(len(outputs), -1), axis=1, kind="stable")[:, :top]
        right = (best == wanted(targets)[:, None]).any(axis=1) & finite(outputs)
        return float(right.mean())

    def f1(outputs: Array, targets: Array) -> float:
        return macro_f1(confusion(chosen(outputs), wanted(targets), count))

    def details(outputs: Array, targets: Array) -> dict[str, Any]:
        matrix = confusion(chosen(outputs), wanted(targets), count)
        recall = matrix.diagonal() / np.maximum(1, matrix.sum(axis=1))
        found: dict[str, Any] = {"recall": recall.round(6).tolist()}
        if count <= MAX_CONFUSION:
            found["confusion"] = matrix.tolist()
        return found

    def constant(targets: Array) -> Array:
        most = int(np.bincount(wanted(targets), minlength=count).argmax())
        one = np.array([[2.0 * most - 1]]) if binary else np.eye(count)[[most]]
        return np.repeat(one, len(targets), axis=0)

    metrics = [Metric("accuracy", accuracy, unit="%"), Metric("f1", f1, unit="%")]
    if not binary and count > top:
        metrics.insert(1, Metric(f"top-{top}", within, unit="%"))
    return Task(
        "classification",
        lambda: _loss(binary, one_hot, logits),
        tuple(metrics),
        lambda: _watched(binary, one_hot, logits),
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


def _watched(binary: bool, one_hot: bool, logits: bool) -> tuple[Any, ...]:
    import tensorflow as tf

    metrics = tf.keras.metrics
    if binary:
        return (metrics.BinaryAccuracy("accuracy", threshold=0.0 if logits else 0.5),)
    kind = metrics.CategoricalAccuracy if one_hot else metrics.SparseCategoricalAccuracy
    return (kind("accuracy"),)


def confusion(chosen: Array, wanted: Array, classes: int) -> Array:
    """[classes, classes]: how often each class (row) was taken for each (column)."""
    known = (chosen >= 0) & (chosen < classes)
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (wanted[known], chosen[known]), 1)
    return matrix


def macro_f1(matrix: Array) -> float:
    """The mean over classes that occur of the harmonic mean of precision and recall."""
    hits = matrix.diagonal()
    sizes = matrix.sum(axis=0) + matrix.sum(axis=1)
    occur = matrix.sum(axis=1) > 0
    return float(np.mean(2 * hits[occur] / np.maximum(1, sizes[occur]))) if occur.any() else 0.0
