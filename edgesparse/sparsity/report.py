"""What a sparsity method leaves behind: a Keras model and the zeros of each of its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.sparsity.training import History
from edgesparse.spec.errors import UsageError

# The first convolution of an image network sees 1 to 4 channels: few weights, much accuracy.
MIN_CONV_INPUTS = 5
# A layer of a user's own method counts as sparsified from this share of zeros on.
MIN_SPARSITY = 0.05


@dataclass(frozen=True)
class LayerSparsity:
    """The zeros of one layer; `shape` is the Keras kernel's."""

    name: str
    shape: tuple[int, ...]
    pattern: str
    target: float
    zeros: int
    size: int
    note: str = ""

    @property
    def achieved(self) -> float:
        return self.zeros / self.size


@dataclass(frozen=True)
class Sparsified:
    """A sparse Keras model, how its training went, and each pruned layer's zeros.

    `notes` go under the table.
    """

    model: tf.keras.Model
    history: History
    layers: tuple[LayerSparsity, ...]
    notes: tuple[str, ...] = ()


def prunable(model: tf.keras.Model) -> dict[str, Any]:
    """Layers with a kernel worth pruning, by name; nested models are looked into."""
    found: dict[str, Any] = {}
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            found |= prunable(layer)
        elif isinstance(layer, tf.keras.layers.Dense) or (
            isinstance(layer, tf.keras.layers.Conv2D)
            and not isinstance(
                layer, tf.keras.layers.DepthwiseConv2D | tf.keras.layers.Conv2DTranspose
            )
            and layer.kernel.shape[2] >= MIN_CONV_INPUTS
        ):
            found[layer.name] = layer
    return found


def measure(
    model: tf.keras.Model, name: str, pattern: str, target: float, note: str = ""
) -> LayerSparsity:
    """Count the zeros of one layer's kernel."""
    kernel = prunable(model)[name].kernel.numpy()
    zeros = int(np.sum(kernel == 0))
    return LayerSparsity(name, tuple(kernel.shape), pattern, target, zeros, int(kernel.size), note)


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
            "edgesparse.sparsity.report.Sparsified"
        )
    layers = []
    for name, layer in prunable(result).items():
        share = float(np.mean(layer.kernel.numpy() == 0))
        if share > MIN_SPARSITY:
            layers.append(measure(result, name, "unstructured", share))
    return Sparsified(result, {}, tuple(layers))
