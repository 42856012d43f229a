"""Segmentation: each pixel has one of several classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.spec.errors import UsageError
from edgesparse.tasks.task import Array, Task, of_each

_MAX_REDUCED_CLASSES = 2**15 - 1
"""Devices send class numbers as int16."""


def task(resolved: Mapping[str, Any]) -> Task:
    """Build the task for outputs [n, ..., classes], or [n, ..., 1] for two classes; integer outputs
    [n, ...] are class numbers, -1 for none. Targets are int [n, ...].

    `resolved`: classes (names), binary, logits.
    """
    binary, logits = bool(resolved.get("binary")), bool(resolved.get("logits"))
    count, threshold = len(resolved["classes"]), 0.0 if logits else 0.5

    def read(outputs: Array, targets: Array) -> tuple[Array, Array]:
        """Return the predicted and the expected class of each pixel, [n, ...]."""
        classes = outputs
        if outputs.dtype.kind == "f":
            classes = outputs[..., 0] > threshold if binary else outputs.argmax(axis=-1)
            finite = np.isfinite(outputs).all(axis=-1)
            classes = np.where(finite, classes.astype(np.int64), -1)
        expected = targets.reshape(classes.shape).astype(np.int64)
        if expected.min() < 0 or expected.max() >= count:
            raise UsageError(
                f"targets contain classes {expected.min()} to {expected.max()}; the task has "
                f"{count}: 0 to {count - 1}"
            )
        return classes, expected

    def class_counts(outputs: Array, targets: Array) -> Array:
        """Return int64 [n, 2, classes]: right pixels, and predicted plus expected ones."""
        classes, expected = read(outputs, targets)
        valid = (classes >= 0) & (classes < count)
        # A number for each class of each sample, so that all samples are counted at once.
        first = np.arange(len(classes)).reshape(-1, *[1] * (classes.ndim - 1)) * count

        def histogram(values: Array, where: Array) -> Array:
            flat = np.bincount((first + values)[where], minlength=len(values) * count)
            return flat.reshape(len(values), count)

        sizes = histogram(classes, valid) + histogram(expected, valid)
        return np.stack([histogram(expected, classes == expected), sizes], axis=1)

    def mean_iou(counts: Array) -> float:
        hits, sizes = counts.sum(axis=0)
        occur = sizes > 0
        ious = hits[occur] / np.maximum(1, sizes[occur] - hits[occur])
        return float(ious.mean()) if occur.any() else 0.0

    def pixels(outputs: Array, targets: Array) -> Array:
        """Return int64 [n, 2]: right pixels, and all."""
        classes, expected = read(outputs, targets)
        hits = (classes == expected).reshape(len(classes), -1).sum(axis=1)
        return np.stack([hits, np.full(len(hits), targets[0].size)], axis=1)

    def pixel_accuracy(counts: Array) -> float:
        hits, size = counts.sum(axis=0)
        return float(hits / size)

    def constant(targets: Array) -> Array:
        mode = np.bincount(targets.reshape(-1).astype(np.int64), minlength=count).argmax()
        return np.full(targets.shape, mode, np.int64)

    metrics = (
        of_each("mean-iou", class_counts, mean_iou, unit="%"),
        of_each("pixel-accuracy", pixels, pixel_accuracy, unit="%"),
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
