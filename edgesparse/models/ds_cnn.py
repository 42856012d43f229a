"""DS-CNN, MLPerf Tiny's keyword spotter (Banbury et al. 2021, arXiv 2106.07597; the network is
the small one of Zhang et al. 2017, arXiv 1711.07128)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

FILTERS = 64
BLOCKS = 4


def ds_cnn(
    input_shape: Sequence[int] = (49, 10, 1), classes: int = 12, dropout: float = 0.2
) -> tf.keras.Model:
    """Build four depthwise-separable blocks of 64 channels with a softmax over `classes`.

    Input: float32 [batch, frames, coefficients, 1]; output: float32 [batch, classes]. With the
    reference's input and classes: 24 908 parameters, 2.66 million multiply-accumulates.
    """
    layers = tf.keras.layers

    def normalize(x: tf.Tensor, name: str) -> tf.Tensor:
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    inputs = tf.keras.Input(tuple(input_shape))
    x = layers.Conv2D(FILTERS, (10, 4), 2, padding="same", name="conv1")(inputs)
    x = layers.Dropout(dropout, name="dropout_1")(normalize(x, "conv1"))
    for i in range(1, BLOCKS + 1):
        x = normalize(layers.DepthwiseConv2D(3, padding="same", name=f"conv_dw_{i}")(x), f"dw_{i}")
        x = normalize(layers.Conv2D(FILTERS, 1, name=f"conv_pw_{i}")(x), f"pw_{i}")
    x = layers.Dropout(2 * dropout, name="dropout_2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, activation="softmax", name="classifier")(x)
    return tf.keras.Model(inputs, outputs, name="ds_cnn")
