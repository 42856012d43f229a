"""Multi-layer perceptron with a mixture of experts."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from edgesparse.layers.experts import Experts


def moe_mlp(
    input_shape: Sequence[int],
    classes: int,
    width: int = 64,
    experts: int = 16,
    top_k: int = 2,
    hidden: int = 64,
    compute: str = "chosen",
) -> tf.keras.Model:
    """Build Flatten, a ReLU layer of `width`, a residual mixture of `experts` networks with
    `hidden` units of which each sample uses `top_k`, and a softmax over `classes`.

    Input: float32 [batch, *input_shape]; output: float32 [batch, classes].

    Args:
        compute: `chosen` experts only, or `all`; see `Experts`.
    """
    layers = tf.keras.layers
    inputs = tf.keras.Input(tuple(input_shape))
    x = layers.Flatten(name="flatten")(inputs)
    x = layers.Dense(width, activation="relu", name="entry")(x)
    mixed = Experts(width, hidden, experts, top_k, compute=compute, name="experts")(x)
    x = layers.ReLU(name="relu")(layers.Add(name="add")([x, mixed]))
    outputs = layers.Dense(classes, activation="softmax", name="classifier")(x)
    return tf.keras.Model(inputs, outputs, name="moe_mlp")
