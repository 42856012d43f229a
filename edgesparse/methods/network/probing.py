"""Channel behaviour of unknown layers, determined by calling them.

A user's own layer, or a Lambda, is called with random inputs to see whether it treats channels
independently, and whether a weight has a row for each input channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

_TRIES = 4
_TOLERANCE = 1e-4


def treats_channels_alike(node: Any) -> bool:
    """Return True where a layer without weights treats every channel alike and independently.

    Args:
        node: node of Keras' graph, with a single input and output.
    """
    source, target = node.keras_inputs[0], tf.nest.flatten(node.outputs)[0]
    if node.layer.weights or source.shape[-1] != target.shape[-1] or not _is_callable(node):
        return False
    random = np.random.default_rng(0)
    try:
        for _ in range(_TRIES):
            x = _sample(source, random)
            order = random.permutation(x.shape[-1])
            y, mixed = _call(node, x), _call(node, x[..., order])
            if not np.allclose(y[..., order], mixed, atol=_TOLERANCE):
                return False
            # A sum over channels is invariant to their order, but not to a channel's value.
            other = x.copy()
            other[..., order[0]] += 1.0
            rest = np.delete(_call(node, other) - y, order[0], axis=-1)
            if np.abs(rest).max(initial=0.0) > _TOLERANCE:
                return False
    except Exception:  # The user's code can refuse random inputs.
        return False
    return True


def input_rows(node: Any) -> list[dict[int, str]] | None:
    """Return for each weight of a layer the axis along its input's channels, as in
    LayerChannels.axes, where removing a channel is removing a row; else None."""
    source = node.keras_inputs[0]
    width, layer = source.shape[-1], node.layer
    candidates = [
        i for i, w in enumerate(layer.weights) if len(w.shape) == 2 and w.shape[0] == width
    ]
    if len(candidates) != 1 or not _is_callable(node):
        return None
    weight = layer.weights[candidates[0]]
    values, random = weight.numpy(), np.random.default_rng(0)
    try:
        for channel in random.integers(0, width, _TRIES):
            x = _sample(source, random)
            without = x.copy()
            without[..., channel] = 0.0
            expected, whole = _call(node, without), _call(node, x)
            changed = values.copy()
            changed[channel] = 0.0
            weight.assign(changed)
            actual = _call(node, x)
            weight.assign(values)
            if not np.allclose(expected, actual, atol=_TOLERANCE):
                return None
            if np.allclose(whole, actual, atol=1e-12) and np.any(values[channel]):
                continue  # This channel had no effect; others will.
    except Exception:
        return None
    finally:
        weight.assign(values)
    return [{0: "in"} if i == candidates[0] else {} for i in range(len(layer.weights))]


def _is_callable(node: Any) -> bool:
    """Return True for a layer with a single float tensor as input."""
    source = node.keras_inputs[0]
    arguments = tf.nest.flatten((node.call_args, node.call_kwargs))
    others = [a for a in arguments if tf.is_tensor(a) and not tf.keras.backend.is_keras_tensor(a)]
    single = len(node.keras_inputs) == 1 and not others
    return single and tf.as_dtype(source.dtype).is_floating and None not in source.shape[1:]


def _sample(source: Any, random: np.random.Generator) -> np.ndarray:
    return random.normal(size=(2, *source.shape[1:])).astype(np.float32)


def _call(node: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(node.layer(tf.constant(x)))
