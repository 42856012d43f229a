"""Segmentation: each pixel has one of several classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.tasks.classification import confusion
from edgesparse.tasks.task import Array, Metric, Task


def task(resolved: Mapping[str, Any]) -> Task:
    """Outputs [n, ..., classes], or [n, ..., 1] for two classes; integers are classes that were
    chosen already, -1 for none, [n, ...]. Targets int [n, ...].

    `resolved`: classes (names), binary, logits.
    """
    binary, logits = bool(resolved.get("binary")), bool(resolved.get("logits"))
    count, threshold = len(resolved["classes"]), 0.0 if logits else 0.5

    def matrix(outputs: Array, targets: Array) -> Array:
        found = outputs
        if outputs.dtype.kind == "f":
            found = outputs[..., 0] > threshold if binary else outputs.argmax(axis=-1)
            found = np.where(np.isfinite(outputs).all(axis=-1), found.astype(np.int64), -1)
        wanted = targets.reshape(found.shape).astype(np.int64)
        return confusion(found.reshape(-1), wanted.reshape(-1), count)

    def mean_iou(outputs: Array, targets: Array) -> float:
        found = matrix(outputs, targets)
        hits, sizes = found.diagonal(), found.sum(axis=0) + found.sum(axis=1)
        occur = sizes > 0
        each = hits[occur] / np.maximum(1, sizes[occur] - hits[occur])
        return float(each.mean()) if occur.any() else 0.0

    def pixels(outputs: Array, targets: Array) -> float:
        return float(matrix(outputs, targets).diagonal().sum() / max(1, targets.size))

    def constant(targets: Array) -> Array:
        most = np.bincount(targets.reshape(-1).astype(np.int64), minlength=count).argmax()
        return np.full(targets.shape, most, np.int64)

    metrics = (Metric("mean-iou", mean_iou, unit="%"), Metric("pixel-accuracy", pixels, unit="%"))
    return Task(
        "segmentation",
        lambda: _loss(binary, logits),
        metrics,
        lambda: _watched(binary, threshold),
        reduced=not binary and count < 2**15,
        constant=constant,
    )


def _loss(binary: bool, logits: bool) -> Any:
    import tensorflow as tf

    losses = tf.keras.losses
    kind = losses.BinaryCrossentropy if binary else losses.SparseCategoricalCrossentropy
    return kind(from_logits=logits)


def _watched(binary: bool, threshold: float) -> tuple[Any, ...]:
    import tensorflow as tf

    if binary:
        return (tf.keras.metrics.BinaryAccuracy("pixel_accuracy", threshold=threshold),)
    return (tf.keras.metrics.SparseCategoricalAccuracy("pixel_accuracy"),)
