"""MLPerf Tiny's anomaly detector: a fully connected autoencoder (Banbury et al. 2021, arXiv
2106.07597; the baseline of DCASE 2020, task 2)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

WIDTH = 128
HIDDEN = 4
BOTTLENECK = 8


def autoencoder(input_shape: Sequence[int] = (640,)) -> tf.keras.Model:
    """Build the autoencoder: four layers of 128, a bottleneck of 8, four layers of 128.

    Input and output: float32 [batch, values]; a large reconstruction error marks an anomaly. With
    the reference's 640 values: 269 992 parameters, 264 192 multiply-accumulates.
    """
    layers = tf.keras.layers

    def block(x: tf.Tensor, width: int, name: str) -> tf.Tensor:
        x = layers.BatchNormalization(name=f"{name}_bn")(layers.Dense(width, name=name)(x))
        return layers.ReLU(name=f"{name}_relu")(x)

    (values,) = input_shape
    x = inputs = tf.keras.Input((values,))
    for i in range(1, HIDDEN + 1):
        x = block(x, WIDTH, f"encoder_{i}")
    x = block(x, BOTTLENECK, "bottleneck")
    for i in range(1, HIDDEN + 1):
        x = block(x, WIDTH, f"decoder_{i}")
    outputs = layers.Dense(values, name="reconstruction")(x)
    return tf.keras.Model(inputs, outputs, name="autoencoder")
