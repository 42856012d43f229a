"""What a layer that nobody knows does with its channels, found by asking it.

A user's own layer, or a Lambda, is called with random inputs: whether each channel goes its own
way, and whether a weight has a row for each channel of the input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

_TRIES = 4
_TOLERANCE = 1e-4


def treats_channels_alike(node: Any) -> bool:
    """Whether a layer without weights does the same with every channel, whatever stands beside it.

    Args:
        node: of Keras' graph, with one input and one output.
    """
    source, target = node.keras_inputs[0], tf.nest.flatten(node.outputs)[0]
    if node.layer.weights or source.shape[-1] != target.shape[-1] or not _can_be_asked(node):
        return False
    random = np.random.default_rng(0)
    try:
        for _ in range(_TRIES):
            x = _sample(source, random)
            order = random.permutation(x.shape[-1])
            y, mixed = _asked(node, x), _asked(node, x[..., order])
            if not np.allclose(y[..., order], mixed, atol=_TOLERANCE):
                return False
            # A sum over channels does not mind their order, but their number.
            other = x.copy()
            other[..., order[0]] += 1.0
            rest = np.delete(_asked(node, other) - y, order[0], axis=-1)
            if np.abs(rest).max(initial=0.0) > _TOLERANCE:
                return False
    except Exception:  # The user's code may refuse what no pipeline gives it.
        return False
    return True


def input_rows(node: Any) -> list[dict[int, str]] | None:
    """For each weight of a layer which axis runs along its input's channels, as in
    LayerChannels.axes: taking a channel away is taking a row away. None where it is not so."""
    source = node.keras_inputs[0]
    width, layer = source.shape[-1], node.layer
    places = [i for i, w in enumerate(layer.weights) if len(w.shape) == 2 and w.shape[0] == width]
    if len(places) != 1 or not _can_be_asked(node):
        return None
    weight = layer.weights[places[0]]
    values, random = weight.numpy(), np.random.default_rng(0)
    try:
        for channel in random.integers(0, width, _TRIES):
            x = _sample(source, random)
            without = x.copy()
            without[..., channel] = 0.0
            expected, whole = _asked(node, without), _asked(node, x)
            changed = values.copy()
            changed[channel] = 0.0
            weight.assign(changed)
            found = _asked(node, x)
            weight.assign(values)
            if not np.allclose(expected, found, atol=_TOLERANCE):
                return None
            if np.allclose(whole, found, atol=1e-12) and np.any(values[channel]):
                continue  # This one happened not to matter; others will.
    except Exception:
        return None
    finally:
        weight.assign(values)
    return [{0: "in"} if i == places[0] else {} for i in range(len(layer.weights))]


def _can_be_asked(node: Any) -> bool:
    """Whether it takes one float tensor and nothing else."""
    source = node.keras_inputs[0]
    arguments = tf.nest.flatten((node.call_args, node.call_kwargs))
    others = [a for a in arguments if tf.is_tensor(a) and not tf.keras.backend.is_keras_tensor(a)]
    single = len(node.keras_inputs) == 1 and not others
    return single and tf.as_dtype(source.dtype).is_floating and None not in source.shape[1:]


def _sample(source: Any, random: np.random.Generator) -> np.ndarray:
    return random.normal(size=(2, *source.shape[1:])).astype(np.float32)


def _asked(node: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(node.layer(tf.constant(x)))
