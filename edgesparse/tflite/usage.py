"""The share of a network that one inference uses: weights read, activations not zero, experts
chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.layers.experts import Experts
from edgesparse.methods.activations import nodes_of, overall, zero_shares


def usage(model: tf.keras.Model, samples: list[np.ndarray]) -> dict[str, Any]:
    """Measure on samples [n, ...] of each input: `active_parameters`, where layers read a part of
    theirs; `activation_zeros`, the share among rectifiers' outputs, and `activations` by layer;
    `experts`, by layer how often each was chosen."""
    usage: dict[str, Any] = {}
    reading = [layer for layer in model.layers if hasattr(layer, "active_weights")]
    total = model.count_params()
    active = total - sum(layer.count_params() - layer.active_weights() for layer in reading)
    if active < total:
        usage["active_parameters"] = int(active)
    shares = zero_shares(model, samples)
    if shares:
        usage["activation_zeros"] = round(overall(shares), 6)
        usage["activations"] = {name: round(share, 6) for name, (share, _) in shares.items()}
    experts = {
        layer.name: chosen(model, layer, samples)
        for layer in model.layers
        if isinstance(layer, Experts)
    }
    return {**usage, **({"experts": experts} if experts else {})}


def chosen(model: tf.keras.Model, layer: Experts, samples: list[np.ndarray]) -> list[float]:
    """Count how often each expert of a layer is chosen, as a share of all choices."""
    before = tf.keras.Model(model.inputs, nodes_of(model, layer)[0].keras_inputs[0])
    x = before(samples[0] if len(samples) == 1 else samples, training=False)
    best = tf.math.top_k(layer.route(x), layer.top_k).indices.numpy()
    counts = np.bincount(best.ravel(), minlength=layer.experts)
    return [round(float(share), 4) for share in counts / counts.sum()]
