"""Recalibration of batch normalization whose moving statistics are stale.

After a short training, or with a large momentum, a network can be accurate in training and at
chance level in inference: its moving statistics average over weights of earlier steps. Recomputed
over training data with the final weights (as Izmailov et al. 2018, arXiv 1803.05407, do it after
weight averaging), they fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

BATCHES = 100
"""Most batches of training data for the recalibration."""
SHARES = ("accuracy", "binary_accuracy", "pixel_accuracy")
"""Keras metrics, shares from 0 to 1, by which stale statistics are detected."""
STALE_GAP = 0.3
"""Relative gap of validation to training from which recalibration is tried by default."""


def recalibratable(model: tf.keras.Model) -> list[Any]:
    """Return the layers whose statistics can be recomputed: none under fake-quantization, whose
    layers contain them."""
    layers = list(model._flatten_layers(recursive=True, include_self=False))
    if any("Quantize" in type(layer).__name__ for layer in layers):
        return []
    return [layer for layer in layers if isinstance(layer, tf.keras.layers.BatchNormalization)]


def is_stale(history: Mapping[str, Sequence[float]], name: str) -> bool:
    """Return True where a metric is much worse on validation data than on training data."""
    seen, unseen = history.get(name), history.get(f"val_{name}")
    return bool(seen and unseen and max(seen) - max(unseen) >= STALE_GAP * max(seen))


def recalibrate(model: tf.keras.Model, batches: tf.data.Dataset) -> None:
    """Recompute the statistics in place: plain means over batches."""
    layers = recalibratable(model)
    momenta = [layer.momentum for layer in layers]
    try:
        for number, (x, *_) in enumerate(batches.take(BATCHES)):
            for layer in layers:
                layer.momentum = number / (number + 1)  # Makes a running mean.
            model(x, training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
