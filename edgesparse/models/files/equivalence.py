"""Whether a model that was changed without training answers as before, and where it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

TOLERANCE = 1e-3
"""Of the range of the answers: rounding stays far below it."""
_SAME = 1e-3
"""Of a value's size: a range below that is rounding, too."""


def largest_difference(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], groups: int = 1
) -> float:
    """By how much of its range an output differs at most; infinite where one has another shape.

    Args:
        before: outputs [samples, ...] by name.
        groups: into how many the samples are divided, each with a range of its own.
    """
    return max((_difference(v, after.get(name), groups) for name, v in before.items()), default=0.0)


def first_difference(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], groups: int = 1
) -> str | None:
    """The first name whose output differs by more than the tolerance."""
    for name, values in before.items():
        if not _difference(values, after.get(name), groups) <= TOLERANCE:
            return name
    return None


def _difference(before: np.ndarray, after: Any, groups: int) -> float:
    if after is None or tuple(after.shape) != before.shape:
        return float("inf")
    found = [0.0]
    for old, new in zip(
        np.array_split(before.astype(np.float64), groups),
        np.array_split(np.asarray(after).astype(np.float64), groups),
        strict=True,
    ):
        known = np.isfinite(old)  # Samples may be such that a model overflows.
        if known.any():
            size, apart = np.ptp(old[known]), np.abs(new - old)[known].max()
            found.append(apart / max(size, _SAME * np.abs(old[known]).max(), 1e-6))
    return float(np.nan_to_num(max(found), nan=np.inf))


def outputs(
    model: tf.keras.Model, tensors: Sequence[Any], samples: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Tensors of a model for samples in the order of its inputs."""
    if not tensors:
        return []
    inner = tf.keras.Model(model.inputs, list(tensors))
    given = samples[0] if len(samples) == 1 else list(samples)
    return [np.asarray(values) for values in tf.nest.flatten(inner(given, training=False))]


def settle_normalizations(model: tf.keras.Model) -> None:
    """Have every Normalization compute with the statistics among its weights: Keras 2 does so where
    it adapts or loads a layer, and not where its weights are set."""
    for layer in model._flatten_layers():
        if isinstance(layer, tf.keras.layers.Normalization) and layer.built:
            layer.finalize_state()
