"""Whether a model that was changed without training answers as before, and where it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.spec.errors import EdgesparseError

TOLERANCE = 1e-3
"""Of the range of the answers: rounding stays far below it."""
_SAME = 1e-3
"""Of a value's size: a range below that is rounding, too."""


def largest_difference(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], groups: int = 1
) -> float:
    """By how much of its range an output differs at most; infinite where one has another shape.

    Args:
        before: outputs [samples, ...] by name.
        groups: into how many the samples are divided, each with a range of its own.
    """
    return max((_difference(v, after.get(name), groups) for name, v in before.items()), default=0.0)


def first_difference(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], groups: int = 1
) -> str | None:
    """The first name whose output differs by more than the tolerance."""
    for name, values in before.items():
        if not _difference(values, after.get(name), groups) <= TOLERANCE:
            return name
    return None


def _difference(before: np.ndarray, after: Any, groups: int) -> float:
    if after is None or tuple(after.shape) != before.shape:
        return float("inf")
    found = [0.0]
    for old, new in zip(
        np.array_split(before.astype(np.float64), groups),
        np.array_split(np.asarray(after).astype(np.float64), groups),
        strict=True,
    ):
        known = np.isfinite(old)  # Samples may be such that a model overflows.
        if known.any():
            size, apart = np.ptp(old[known]), np.abs(new - old)[known].max()
            share = apart / max(size, _SAME * np.abs(old[known]).max(), 1e-6)
            found.append(float("inf") if np.isnan(share) else float(share))
    return max(found)


def require_equal(
    change: str,
    before: tf.keras.Model,
    after: tf.keras.Model,
    samples: Any,
    same: Any = None,
) -> None:
    """Hold a changed model against the one before, layers that compute with random numbers aside.

    Args:
        change: what was done to it, for the message: "flattening".
        samples: what `before` is called with: an array, a list, or a mapping of them.
        same: what `after` is called with; default: the same.

    Raises:
        EdgesparseError: it answers differently; the message names the layer.
    """
    same = samples if same is None else same
    answers = _numbered(before(samples, training=False))
    apart = largest_difference(answers, _numbered(after(same, training=False)))
    again = _numbered(before(samples, training=False))
    if apart <= TOLERANCE or largest_difference(answers, again) > TOLERANCE:
        return
    name = first_difference(_recorded(before, samples), _recorded(after, same))
    where = f", from layer {name.rpartition(' ')[0]} on" if name else ""
    size = f"by {apart:.1%} of their range" if np.isfinite(apart) else "their shape"
    raise EdgesparseError(f"{change} changes the model's answers {size}{where}")


def _numbered(found: Any) -> dict[str, np.ndarray]:
    return {str(n): np.asarray(values) for n, values in enumerate(tf.nest.flatten(found))}


def _recorded(model: tf.keras.Model, samples: Any) -> dict[str, np.ndarray]:
    """What each layer gives when the model is called: by its name, as often as it is called."""
    found: dict[str, np.ndarray] = {}
    original: dict[Any, Any] = {}

    def recording(layer: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            values = original[layer](*arguments, **named)
            for number, value in enumerate(tf.nest.flatten(values)):
                count = sum(name.startswith(f"{layer.name} ") for name in found)
                found[f"{layer.name} {count}.{number}"] = np.asarray(value)
            return values

        return call

    layers = [x for x in model._flatten_layers(include_self=False) if _is_recorded(x)]
    own = {layer: vars(layer).get("call") for layer in layers}
    try:
        for layer in layers:
            original[layer] = layer.call
            vars(layer)["call"] = recording(layer)
        model(samples, training=False)
    finally:
        for layer, call in own.items():
            vars(layer).pop("call", None)
            if call is not None:
                vars(layer)["call"] = call
    return {name: values for name, values in found.items() if values.dtype.kind in "fiub"}


def _is_recorded(layer: Any) -> bool:
    # The toolkit's wrappers call the layers in them, which have the names of before.
    toolkit = type(layer).__module__.startswith("tensorflow_model_optimization")
    return not isinstance(layer, tf.keras.Model) and not toolkit


def outputs(
    model: tf.keras.Model, tensors: Sequence[Any], samples: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Tensors of a model for samples in the order of its inputs."""
    if not tensors:
        return []
    inner = tf.keras.Model(model.inputs, list(tensors))
    given = samples[0] if len(samples) == 1 else list(samples)
    return [np.asarray(values) for values in tf.nest.flatten(inner(given, training=False))]


def settle_normalizations(model: tf.keras.Model) -> None:
    """Have every Normalization compute with the statistics among its weights: Keras 2 does so in
    set_weights(), and not where single weights are assigned, as the toolkit does."""
    for layer in model._flatten_layers():
        if isinstance(layer, tf.keras.layers.Normalization) and layer.built:
            layer.finalize_state()
