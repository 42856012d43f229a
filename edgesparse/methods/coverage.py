"""Coverage of sparsity methods: zeros by layer, and the layers left dense with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.methods.network.kernels import Kernel, kernels
from edgesparse.methods.training.fitting import History
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.text import listed

# A layer of a user's own method counts as sparsified from this share of zeros on.
MIN_SPARSITY = 0.05


@dataclass(frozen=True)
class LayerSparsity:
    """Zeros of a layer, or the share of its channels that was removed; `shape` is the Keras
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
    """A kernel that a step left dense: its share of the weights, and the reason."""

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
    """A sparse Keras model, the history of its training, and each pruned layer's zeros.

    `notes` go under the table.
    """

    model: tf.keras.Model
    history: History
    layers: tuple[LayerSparsity, ...]
    notes: tuple[str, ...] = ()
    coverage: Coverage | None = None
    keeps_layers: bool = False
    """True where only weights differ from the model before."""


def measure(kernel: Kernel, pattern: str, target: float, note: str = "") -> LayerSparsity:
    """Count the zeros of a kernel."""
    zeros = int(np.sum(kernel.variable.numpy() == 0))
    return LayerSparsity(kernel.name, kernel.shape, pattern, target, zeros, kernel.size, note)


def coverage(model: tf.keras.Model, target: float, reasons: Mapping[str, str]) -> Coverage:
    """Return the coverage of a step with a target sparsity; `reasons` say why kernels were left
    dense, by their names."""
    every = kernels(model)
    total = max(1, sum(kernel.size for kernel in every.values()))
    zeros = sum(int(np.sum(k.variable.numpy() == 0)) for k in every.values())
    left = [LeftDense(name, every[name].size / total, why) for name, why in reasons.items()]
    left.sort(key=lambda item: -item.share)
    return Coverage(target, zeros / total, tuple(left))


def require_covered(done: Coverage, allow_partial: bool) -> None:
    """Raise EdgesparseError where less than half of the target was achieved without
    `allow_partial`."""
    if allow_partial or done.achieved >= done.target / 2:
        return
    every = [f"{item.name} ({item.share:.0%}): {item.reason}" for item in done.left_dense]
    left = f"; layers left dense: {listed(every, 3, '; ')}" if every else ""
    raise EdgesparseError(
        f"requested {done.target:.0%} sparsity, reached {done.achieved:.0%}{left}; set "
        "'allow_partial: true' on this step to accept"
    )


def as_sparsified(result: Any, label: str) -> Sparsified:
    """Convert the result of a user's method: a Sparsified, or just a Keras model.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(result, Sparsified):
        return result
    if not isinstance(result, tf.keras.Model):
        raise UsageError(
            f"{label} returned {type(result).__name__}; it must return a tf.keras.Model or an "
            "edgesparse.methods.coverage.Sparsified"
        )
    layers = []
    for kernel in kernels(result).values():
        share = float(np.mean(kernel.variable.numpy() == 0))
        if share > MIN_SPARSITY:
            layers.append(measure(kernel, "unstructured", share))
    return Sparsified(result, {}, tuple(layers))
