"""ResNet-8, MLPerf Tiny's image classifier (Banbury et al. 2021, arXiv 2106.07597; residual
blocks after He et al. 2015, arXiv 1512.03385)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

STACKS = ((16, 1), (32, 2), (64, 2))
"""(filters, stride) of the three residual blocks."""


def resnet8(input_shape: Sequence[int] = (32, 32, 3), classes: int = 10) -> tf.keras.Model:
    """Build three residual blocks of two 3x3 convolutions with a softmax over `classes`.

    Input: float32 [batch, height, width, channels]; output: float32 [batch, classes]. With the
    reference's input and classes: 78 666 parameters, 12.5 million multiply-accumulates.
    """
    layers = tf.keras.layers

    def convolve(x: tf.Tensor, filters: int, stride: int, name: str) -> tf.Tensor:
        x = layers.Conv2D(filters, 3, stride, padding="same", name=name)(x)
        return layers.BatchNormalization(name=f"{name}_bn")(x)

    inputs = tf.keras.Input(tuple(input_shape))
    x = layers.ReLU(name="conv1_relu")(convolve(inputs, STACKS[0][0], 1, "conv1"))
    for i, (filters, stride) in enumerate(STACKS, start=1):
        y = layers.ReLU(name=f"block_{i}_relu")(convolve(x, filters, stride, f"block_{i}_conv_1"))
        y = convolve(y, filters, 1, f"block_{i}_conv_2")
        if stride > 1:
            x = layers.Conv2D(filters, 1, stride, padding="same", name=f"block_{i}_shortcut")(x)
        x = layers.ReLU(name=f"block_{i}_out")(layers.Add(name=f"block_{i}_add")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, activation="softmax", name="classifier")(x)
    return tf.keras.Model(inputs, outputs, name="resnet8")
