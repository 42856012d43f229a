"""Segmentation: each pixel has one of several classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.tasks.classification import confusion
from edgesparse.tasks.task import Array, Metric, Task

_MAX_REDUCED_CLASSES = 2**15 - 1
"""Devices send class numbers as int16."""


def task(resolved: Mapping[str, Any]) -> Task:
    """Build the task for outputs [n, ..., classes], or [n, ..., 1] for two classes; integer outputs
    [n, ...] are class numbers, -1 for none. Targets are int [n, ...].

    `resolved`: classes (names), binary, logits.
    """
    binary, logits = bool(resolved.get("binary")), bool(resolved.get("logits"))
    count, threshold = len(resolved["classes"]), 0.0 if logits else 0.5

    def matrix(outputs: Array, targets: Array) -> Array:
        classes = outputs
        if outputs.dtype.kind == "f":
            classes = outputs[..., 0] > threshold if binary else outputs.argmax(axis=-1)
            finite = np.isfinite(outputs).all(axis=-1)
            classes = np.where(finite, classes.astype(np.int64), -1)
        expected = targets.reshape(classes.shape).astype(np.int64)
        return confusion(classes.reshape(-1), expected.reshape(-1), count)

    def mean_iou(outputs: Array, targets: Array) -> float:
        counts = matrix(outputs, targets)
        hits, sizes = counts.diagonal(), counts.sum(axis=0) + counts.sum(axis=1)
        occur = sizes > 0
        ious = hits[occur] / np.maximum(1, sizes[occur] - hits[occur])
        return float(ious.mean()) if occur.any() else 0.0

    def pixel_accuracy(outputs: Array, targets: Array) -> float:
        return float(matrix(outputs, targets).diagonal().sum() / max(1, targets.size))

    def constant(targets: Array) -> Array:
        mode = np.bincount(targets.reshape(-1).astype(np.int64), minlength=count).argmax()
        return np.full(targets.shape, mode, np.int64)

    metrics = (
        Metric("mean-iou", mean_iou, unit="%"),
        Metric("pixel-accuracy", pixel_accuracy, unit="%"),
    )
    return Task(
        "segmentation",
        lambda: _loss(binary, logits),
        metrics,
        lambda: _keras_metrics(binary, threshold),
        reduced=not binary and count <= _MAX_REDUCED_CLASSES,
        constant=constant,
    )


def _loss(binary: bool, logits: bool) -> Any:
    import tensorflow as tf

    losses = tf.keras.losses
    kind = losses.BinaryCrossentropy if binary else losses.SparseCategoricalCrossentropy
    return kind(from_logits=logits)


def _keras_metrics(binary: bool, threshold: float) -> tuple[Any, ...]:
    import tensorflow as tf

    if binary:
        return (tf.keras.metrics.BinaryAccuracy("pixel_accuracy", threshold=threshold),)
    return (tf.keras.metrics.SparseCategoricalAccuracy("pixel_accuracy"),)
