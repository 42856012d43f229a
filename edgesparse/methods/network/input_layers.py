"""Layers that read a model's inputs: their names, scaling of pixels, and valid ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset
from edgesparse.spec.errors import UsageError

_THROUGH = (
    "Dropout", "Flatten", "GaussianNoise", "Masking", "Normalization", "Rescaling", "Reshape",
)  # fmt: skip
"""Layers that pass on an input's values one by one."""
_BEFORE_SCALING = ("Activation", "CenterCrop", "Resizing", "ZeroPadding2D")

_BATCH = 1024
_LARGEST = 16.0
"""Largest divisor for pixels of 0 to 1; those of 0 to 255 are divided by more."""


def pixels_scaled_by(model: tf.keras.Model) -> str | None:
    """Return the name of the layer at the model's beginning that scales pixels of 0 to 255; None
    without one, or where it takes values of 0 to 1."""
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
    """Return True for a layer that scales down values in the hundreds."""
    layer, kind = node.layer, type(node.layer).__name__
    if kind == "Rescaling":
        return bool(np.max(np.abs(layer.scale)) < 1 / _LARGEST)
    if kind == "Normalization":
        mean, variance = (getattr(layer, name, None) for name in ("mean", "variance"))
        if mean is None or variance is None:
            return False  # Not adapted yet.
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
    """Return the layers with weights that read an input's values, with the input's name."""
    inputs = {id(t): name for t, name in zip(model.inputs, model.input_names, strict=True)}
    layers: dict[str, str] = {}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            names = {inputs[id(t)] for t in node.keras_inputs if id(t) in inputs}
            if node.is_input or not names:
                continue
            if type(node.layer).__name__ in _THROUGH:
                inputs.update((id(t), min(names)) for t in tf.nest.flatten(node.outputs))
            elif node.layer.weights:
                layers.setdefault(node.layer.name, min(names))
    return layers


def check_ids(model: tf.keras.Model, dataset: Dataset, names: Sequence[str]) -> None:
    """Compare the ids in the data with the sizes of embedding tables.

    Args:
        model: a flat functional model.
        dataset: its data.
        names: names of the dataset's inputs, in the order of the model's.

    Raises:
        UsageError: an input has ids without a row in a table.
    """
    tables: dict[str, Any] = {}
    for tensor, name in zip(model.inputs, names, strict=True):
        for layer in model.layers:
            read = isinstance(layer, tf.keras.layers.Embedding) and any(
                source is tensor for node in layer.inbound_nodes for source in node.keras_inputs
            )
            if read and (name not in tables or layer.input_dim < tables[name].input_dim):
                tables[name] = layer
    if not tables:
        return
    low, high = dict.fromkeys(tables, 0), dict.fromkeys(tables, 0)
    for split in (dataset.train, dataset.validation, dataset.test):
        for x, *_ in split.samples.batch(_BATCH):
            source = x if isinstance(x, Mapping) else {names[0]: x}
            for name in tables:
                values = source[name].numpy()
                low[name] = min(low[name], int(values.min()))
                high[name] = max(high[name], int(values.max()))
    for name, layer in tables.items():
        if low[name] < 0 or high[name] >= layer.input_dim:
            raise UsageError(
                f"the data's input {name} has token ids from {low[name]} to {high[name]}; the "
                f"model's layer {layer.name} (Embedding) takes 0 to {layer.input_dim - 1}: set its "
                f"input_dim to {high[name] + 1} or more, or map other ids to one for unknown tokens"
            )
