"""Which layers read a model's inputs, and along which axis of their weights."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_THROUGH = (
    "Dropout", "Flatten", "GaussianNoise", "Masking", "Normalization", "Rescaling", "Reshape",
)  # fmt: skip
"""Layers behind which an input's values are still the input's, one by one."""


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
