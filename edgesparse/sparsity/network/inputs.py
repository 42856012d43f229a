"""Which layers read a model's inputs, and which of them scale pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

_THROUGH = (
    "Dropout", "Flatten", "GaussianNoise", "Masking", "Normalization", "Rescaling", "Reshape",
)  # fmt: skip
"""Layers behind which an input's values are still the input's, one by one."""
_BEFORE_SCALING = ("Activation", "CenterCrop", "Resizing", "ZeroPadding2D")

_LARGEST = 16.0
"""Pixels of 0 to 1 become no smaller than by this; those of 0 to 255 by more."""


def pixels_scaled_by(model: tf.keras.Model) -> str | None:
    """The name of a layer at the model's beginning that scales pixels of 0 to 255; None where there
    is none, or it takes values of 0 to 1."""
    for tensor in model.inputs:
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input or not any(t is tensor for t in node.keras_inputs):
                    continue
                layer, kind = node.layer, type(node.layer).__name__
                if isinstance(layer, tf.keras.Model):
                    return pixels_scaled_by(layer)
                if _divides(node):
                    return str(layer.name)
                if kind.startswith("Random") or kind in _BEFORE_SCALING:
                    tensor = tf.nest.flatten(node.outputs)[0]
    return None


def _divides(node: Any) -> bool:
    """Whether a layer makes values of hundreds small."""
    layer, kind = node.layer, type(node.layer).__name__
    if kind == "Rescaling":
        return bool(np.max(np.abs(layer.scale)) < 1 / _LARGEST)
    if kind == "Normalization":
        mean, variance = (getattr(layer, name, None) for name in ("mean", "variance"))
        if mean is None or variance is None:
            return False  # Nothing was learned, or given, yet.
        return bool(np.max(np.abs(mean)) + np.sqrt(np.max(variance)) > _LARGEST)
    if kind != "TFOpLambda" or len(node.keras_inputs) > 1:
        return False
    numbers = [a for a in tf.nest.flatten((node.call_args, node.call_kwargs))
               if isinstance(a, int | float) and not isinstance(a, bool)]  # fmt: skip
    function = layer.get_config()["function"]
    if function in ("math.divide", "math.truediv"):
        return any(abs(number) > _LARGEST for number in numbers)
    return function == "math.multiply" and any(0 < abs(n) < 1 / _LARGEST for n in numbers)


def readers(model: tf.keras.Model) -> dict[str, str]:
    """Layers that read an input as it is, by name, with the input's name."""
    inputs = {id(t): name for t, name in zip(model.inputs, model.input_names, strict=True)}
    found: dict[str, str] = {}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            names = {inputs[id(t)] for t in node.keras_inputs if id(t) in inputs}
            if node.is_input or not names:
                continue
            if type(node.layer).__name__ in _THROUGH:
                inputs.update((id(t), min(names)) for t in tf.nest.flatten(node.outputs))
            elif node.layer.weights:
                found.setdefault(node.layer.name, min(names))
    return found


def input_axis(kernel: Any) -> int:
    """Along which axis of a kernel [..., inputs, outputs], or a table [values, width], inputs
    are."""
    return len(kernel.shape) - 2
