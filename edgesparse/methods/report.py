"""What a sparsity method leaves behind: a Keras model and the zeros of each of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.methods.network.kernels import Kernel, kernels
from edgesparse.methods.training.fitting import History
from edgesparse.spec.errors import EdgesparseError, UsageError

# A layer of a user's own method counts as sparsified from this share of zeros on.
MIN_SPARSITY = 0.05


@dataclass(frozen=True)
class LayerSparsity:
    """The zeros of one layer, or which share of its channels was removed; `shape` is the Keras
    kernel's, `size_before` its size with all channels."""

    name: str
    shape: tuple[int, ...]
    pattern: str
    target: float
    zeros: int
    size: int
    note: str = ""
    removed: float | None = None
    size_before: int | None = None

    @property
    def achieved(self) -> float:
        return self.zeros / self.size if self.removed is None else self.removed


@dataclass(frozen=True)
class LeftDense:
    """A kernel that a step did not touch: its share of the weights, and why."""

    name: str
    share: float
    reason: str


@dataclass(frozen=True)
class Coverage:
    """The target and achieved share of zeros of a step, over all weights of two or more dimensions,
    and the kernels that it left dense, the largest first."""

    target: float
    achieved: float
    left_dense: tuple[LeftDense, ...]


@dataclass(frozen=True)
class Sparsified:
    """A sparse Keras model, how its training went, and each pruned layer's zeros.

    `notes` go under the table.
    """

    model: tf.keras.Model
    history: History
    layers: tuple[LayerSparsity, ...]
    notes: tuple[str, ...] = ()
    coverage: Coverage | None = None
    keeps_layers: bool = False
    """Whether the model has the same layers as the one that was given, with other weights."""


def measure(kernel: Kernel, pattern: str, target: float, note: str = "") -> LayerSparsity:
    """Count the zeros of one kernel."""
    zeros = int(np.sum(kernel.variable.numpy() == 0))
    return LayerSparsity(kernel.name, kernel.shape, pattern, target, zeros, kernel.size, note)


def coverage(model: tf.keras.Model, target: float, reasons: Mapping[str, str]) -> Coverage:
    """What a step that asked for a share of zeros reached; `reasons` say why kernels were left
    dense, by their names."""
    found = kernels(model)
    total = max(1, sum(kernel.size for kernel in found.values()))
    zeros = sum(int(np.sum(k.variable.numpy() == 0)) for k in found.values())
    left = [LeftDense(name, found[name].size / total, why) for name, why in reasons.items()]
    left.sort(key=lambda one: -one.share)
    return Coverage(target, zeros / total, tuple(left))


def require_covered(done: Coverage, allow_partial: bool) -> None:
    """Raise EdgesparseError where less than half was reached of what was asked, and nobody said
    that this is all right."""
    if allow_partial or done.achieved >= done.target / 2:
        return
    left = "; ".join(f"{one.name} ({one.share:.0%}): {one.reason}" for one in done.left_dense[:3])
    raise EdgesparseError(
        f"{done.target:.0%} zeros were asked for, and {done.achieved:.0%} of the weights are: left "
        f"dense are {left}; say 'allow_partial: true' in this step if that is meant"
    )


def as_sparsified(result: Any, label: str) -> Sparsified:
    """What a user's own method returned: a Sparsified, or just its Keras model.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(result, Sparsified):
        return result
    if not isinstance(result, tf.keras.Model):
        raise UsageError(
            f"{label} returned {type(result).__name__}; it must return a tf.keras.Model or an "
            "edgesparse.methods.report.Sparsified"
        )
    layers = []
    for kernel in kernels(result).values():
        share = float(np.mean(kernel.variable.numpy() == 0))
        if share > MIN_SPARSITY:
            layers.append(measure(kernel, "unstructured", share))
    return Sparsified(result, {}, tuple(layers))
