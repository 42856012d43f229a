"""Equivalence: compares a model's outputs before and after a change without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.spec.errors import EdgesparseError

TOLERANCE = 1e-3
"""Share of the outputs' range: rounding stays far below it."""
_CONSTANT = 1e-3
"""Share of a value's magnitude: a smaller range is rounding of a constant output."""


def largest_difference(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], groups: int = 1
) -> float:
    """Return the largest difference of an output as a share of its range.

    Args:
        before, after: outputs [samples, ...] by name.
        groups: number of equal groups of samples, each with its own range.

    Returns:
        The share; infinite if an output is missing, is NaN or has another shape.
    """
    return max((_difference(v, after.get(name), groups) for name, v in before.items()), default=0.0)


def first_difference(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], groups: int = 1
) -> str | None:
    """Return the first name whose output differs by more than TOLERANCE."""
    for name, values in before.items():
        if not _difference(values, after.get(name), groups) <= TOLERANCE:
            return name
    return None


def _difference(before: np.ndarray, after: Any, groups: int) -> float:
    if after is None or tuple(after.shape) != before.shape:
        return float("inf")
    shares = [0.0]
    for old, new in zip(
        np.array_split(before.astype(np.float64), groups),
        np.array_split(np.asarray(after).astype(np.float64), groups),
        strict=True,
    ):
        finite = np.isfinite(old)  # Random samples can make a model overflow.
        if finite.any():
            size, error = np.ptp(old[finite]), np.abs(new - old)[finite].max()
            share = error / max(size, _CONSTANT * np.abs(old[finite]).max(), 1e-6)
            shares.append(float("inf") if np.isnan(share) else float(share))
    return max(shares)


def require_equal(
    change: str,
    before: tf.keras.Model,
    after: tf.keras.Model,
    samples: Any,
    samples_after: Any = None,
) -> None:
    """Check that a changed model has the outputs of the original, unless those are random.

    Args:
        change: the change, as the message's subject: "flattening".
        samples: input of `before`: an array, a list, or a mapping of them.
        samples_after: input of `after`; default: `samples`.

    Raises:
        EdgesparseError: outputs differ; the message names the first layer that does.
    """
    samples_after = samples if samples_after is None else samples_after
    outputs = _by_index(before(samples, training=False))
    difference = largest_difference(outputs, _by_index(after(samples_after, training=False)))
    repeated = _by_index(before(samples, training=False))
    if difference <= TOLERANCE or largest_difference(outputs, repeated) > TOLERANCE:
        return
    name = first_difference(_layer_outputs(before, samples), _layer_outputs(after, samples_after))
    where = f", from layer {name.rpartition(' ')[0]} on" if name else ""
    size = (
        f"by {difference:.1%} of their range" if np.isfinite(difference) else "in shape or to NaN"
    )
    raise EdgesparseError(f"{change} changed the model's outputs {size}{where}")


def _by_index(outputs: Any) -> dict[str, np.ndarray]:
    return {str(n): np.asarray(values) for n, values in enumerate(tf.nest.flatten(outputs))}


def _layer_outputs(model: tf.keras.Model, samples: Any) -> dict[str, np.ndarray]:
    """Record the outputs of every call of each layer while the model is called.

    Returns:
        Outputs by "LAYER CALL.OUTPUT", in order of the calls.
    """
    outputs: dict[str, np.ndarray] = {}
    original: dict[Any, Any] = {}

    def recording(layer: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            values = original[layer](*arguments, **named)
            for number, value in enumerate(tf.nest.flatten(values)):
                count = sum(name.startswith(f"{layer.name} ") for name in outputs)
                outputs[f"{layer.name} {count}.{number}"] = np.asarray(value)
            return values

        return call

    layers = [x for x in model._flatten_layers(include_self=False) if _is_recorded(x)]
    overridden = {layer: vars(layer).get("call") for layer in layers}
    try:
        for layer in layers:
            original[layer] = layer.call
            vars(layer)["call"] = recording(layer)
        model(samples, training=False)
    finally:
        for layer, call in overridden.items():
            vars(layer).pop("call", None)
            if call is not None:
                vars(layer)["call"] = call
    return {name: values for name, values in outputs.items() if values.dtype.kind in "fiub"}


def _is_recorded(layer: Any) -> bool:
    # tfmot's wrappers call their layers, which have the original names.
    toolkit = type(layer).__module__.startswith("tensorflow_model_optimization")
    return not isinstance(layer, tf.keras.Model) and not toolkit


def outputs(
    model: tf.keras.Model, tensors: Sequence[Any], samples: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Compute tensors of a model for samples, both in the order of its inputs."""
    if not tensors:
        return []
    inner = tf.keras.Model(model.inputs, list(tensors))
    x = samples[0] if len(samples) == 1 else list(samples)
    return [np.asarray(values) for values in tf.nest.flatten(inner(x, training=False))]


def finalize_normalizations(model: tf.keras.Model) -> None:
    """Make every Normalization layer use the statistics in its weights: Keras 2 does so in
    set_weights() only, not when single weights are assigned, as tfmot does."""
    for layer in model._flatten_layers():
        if isinstance(layer, tf.keras.layers.Normalization) and layer.built:
            layer.finalize_state()
