"""MobileNetV1 (Howard et al. 2017, arXiv 1704.04861), laid out for sparse inference.

XNNPACK's sparse path needs symmetric padding, so stride-2 layers pad by an explicit
ZeroPadding2D(1) and convolve 'valid': TensorFlow's own 'same' pads one side only there.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

# (filters at alpha 1.0, stride) of the thirteen depthwise-separable blocks.
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
# With Keras' default of 0.99 the moving statistics lag in a training of a few hundred steps.
BATCH_NORM_MOMENTUM = 0.9


def mobilenet_v1(
    input_shape: Sequence[int],
    classes: int,
    alpha: float = 1.0,
    downsample: int = 5,
) -> tf.keras.Model:
    """Build MobileNetV1 with a softmax over `classes`.

    Input: float32 [batch, height, width, 3]; output: float32 [batch, classes].

    Args:
        alpha: width multiplier; channels are rounded to multiples of 8.
        downsample: number of the five stride-2 stages that keep their stride. 5 is the published
            network; an input of 32x32 does better with 2 or 3.
    """
    layers = tf.keras.layers

    def channels(filters: int) -> int:
        return max(8, int(filters * alpha + 4) // 8 * 8)

    def normalize(x: tf.Tensor, name: str) -> tf.Tensor:
        x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x)

    def pad(x: tf.Tensor, stride: int, name: str) -> tuple[tf.Tensor, str]:
        if stride == 1:
            return x, "same"
        return layers.ZeroPadding2D(1, name=f"{name}_pad")(x), "valid"

    inputs = tf.keras.Input(tuple(input_shape))
    strided = 1 if downsample >= 1 else 0
    x, padding = pad(inputs, 1 + strided, "conv1")
    x = layers.Conv2D(channels(32), 3, 1 + strided, padding=padding, use_bias=False, name="conv1")(
        x
    )
    x = normalize(x, "conv1")
    for i, (filters, stride) in enumerate(BLOCKS, start=1):
        if stride == 2:
            stride = 2 if strided < downsample else 1
            strided += 1
        x, padding = pad(x, stride, f"conv_dw_{i}")
        x = layers.DepthwiseConv2D(3, stride, padding=padding, use_bias=False, name=f"conv_dw_{i}")(
            x
        )
        x = normalize(x, f"conv_dw_{i}")
        x = layers.Conv2D(channels(filters), 1, use_bias=False, name=f"conv_pw_{i}")(x)
        x = normalize(x, f"conv_pw_{i}")
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    # Fully connected: ai-edge-litert 2 on Arm rejects sparse files that end in a 1x1 convolution.
    x = layers.Flatten(name="flatten")(x)
    outputs = layers.Dense(classes, activation="softmax", name="classifier")(x)
    return tf.keras.Model(inputs, outputs, name=f"mobilenet_v1_{alpha}")
