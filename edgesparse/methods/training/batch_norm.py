"""Batch normalization whose moving statistics are behind its weights.

After a short training, or one with a large momentum, a network may answer right in training and by
chance in inference: what it normalizes with then is an average over weights that are long gone.
Recomputed over training data with the weights as they are (as Izmailov et al. 2018, arXiv
1803.05407, do it after averaging), it is right again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

BATCHES = 100
"""Over so many batches of training data, at most."""
SHARES = ("accuracy", "binary_accuracy", "pixel_accuracy")
"""Metrics of a training of which that is known."""
BEHIND = 0.3
"""Such a part of a share may validation be behind training before settling is tried unasked."""


def unsettled(model: tf.keras.Model) -> list[Any]:
    """The layers whose statistics can be recomputed: none where fake-quantization has them in its
    own."""
    layers = list(model._flatten_layers(recursive=True, include_self=False))
    if any("Quantize" in type(layer).__name__ for layer in layers):
        return []
    return [one for one in layers if isinstance(one, tf.keras.layers.BatchNormalization)]


def behind(history: Mapping[str, Sequence[float]], name: str) -> bool:
    """Whether a share is much worse on validation data than on training data, at the end."""
    seen, unseen = history.get(name), history.get(f"val_{name}")
    return bool(seen and unseen and max(seen) - max(unseen) >= BEHIND * max(seen))


def settle(model: tf.keras.Model, batches: tf.data.Dataset) -> None:
    """Recompute the statistics: plain means over batches, with all else as it is."""
    layers = unsettled(model)
    momenta = [layer.momentum for layer in layers]
    try:
        for number, (x, *_) in enumerate(batches.take(BATCHES)):
            for layer in layers:
                layer.momentum = number / (number + 1)  # The mean so far.
            model(x, training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
