"""Multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def mlp(
    input_shape: Sequence[int],
    classes: int,
    widths: Sequence[int] = (256, 256),
    dropout: float = 0.0,
) -> tf.keras.Model:
    """Build Flatten, a ReLU layer (and dropout) per width, and a softmax over `classes`.

    Input: float32 [batch, *input_shape]; output: float32 [batch, classes].
    """
    layers = tf.keras.layers
    inputs = tf.keras.Input(tuple(input_shape))
    x = layers.Flatten(name="flatten")(inputs)
    for i, width in enumerate(widths, start=1):
        x = layers.Dense(width, activation="relu", name=f"dense_{i}")(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout_{i}")(x)
    outputs = layers.Dense(classes, activation="softmax", name="classifier")(x)
    return tf.keras.Model(inputs, outputs, name="mlp")
