"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), laid out for sparse inference.

As in mobilenet_v1.py, stride-2 layers pad by an explicit ZeroPadding2D(1): XNNPACK's sparse path
needs symmetric padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from edgesparse.models.mobilenet_v1 import BATCH_NORM_MOMENTUM

# (expansion, filters at alpha 1.0, blocks, stride of the first) of the seven groups.
GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
LAST_FILTERS = 1280


def mobilenet_v2(
    input_shape: Sequence[int], classes: int, alpha: float = 1.0, downsample: int = 5
) -> tf.keras.Model:
    """Build MobileNetV2 with a softmax over `classes`.

    Input: float32 [batch, height, width, 3]; output: float32 [batch, classes]. At 224x224, alpha
    1.0 and 1 000 classes: 3 538 984 parameters, 300 million multiply-accumulates.

    Args:
        alpha: width multiplier; channels are rounded to multiples of 8, the last layer's never fall
            below 1 280.
        downsample: number of the five stride-2 stages that keep their stride. 5 is the published
            network; an input of 32x32 does better with 2 or 3.
    """
    layers = tf.keras.layers
    strided = 0

    def stride_of(stride: int) -> int:
        nonlocal strided
        strided += stride == 2
        return stride if strided <= downsample else 1

    inputs = tf.keras.Input(tuple(input_shape))
    stride = stride_of(2)
    x, padding = _pad(inputs, stride, "conv1")
    x = layers.Conv2D(
        _channels(32 * alpha), 3, stride, padding=padding, use_bias=False, name="conv1"
    )(x)
    x = _normalize(x, "conv1")
    number = 0
    for expansion, filters, count, first_stride in GROUPS:
        stride = stride_of(first_stride)
        for repeat in range(count):
            number += 1
            block_stride = stride if repeat == 0 else 1
            x = _block(x, expansion, _channels(filters * alpha), block_stride, f"block_{number}")
    last = _channels(LAST_FILTERS * max(1.0, alpha))
    x = _normalize(layers.Conv2D(last, 1, use_bias=False, name="conv_last")(x), "conv_last")
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    # Fully connected: ai-edge-litert 2 on Arm rejects sparse files that end in a 1x1 convolution.
    x = layers.Flatten(name="flatten")(x)
    outputs = layers.Dense(classes, activation="softmax", name="classifier")(x)
    return tf.keras.Model(inputs, outputs, name=f"mobilenet_v2_{alpha}")


def _channels(filters: float) -> int:
    """Round to a multiple of 8, by at most a tenth down (as in the authors' code)."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded


def _normalize(x: tf.Tensor, name: str, activate: bool = True) -> tf.Tensor:
    layers = tf.keras.layers
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if activate else x


def _pad(x: tf.Tensor, stride: int, name: str) -> tuple[tf.Tensor, str]:
    """Return the padded input of a convolution, and the convolution's own padding."""
    if stride == 1:
        return x, "same"
    return tf.keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x), "valid"


def _block(x: tf.Tensor, expansion: int, filters: int, stride: int, name: str) -> tf.Tensor:
    """Add an inverted residual."""
    layers = tf.keras.layers
    inner, width = x, x.shape[-1]
    if expansion > 1:
        expand = layers.Conv2D(width * expansion, 1, use_bias=False, name=f"{name}_expand")
        inner = _normalize(expand(inner), f"{name}_expand")
    inner, padding = _pad(inner, stride, name)
    inner = layers.DepthwiseConv2D(
        3, stride, padding=padding, use_bias=False, name=f"{name}_depthwise"
    )(inner)
    inner = _normalize(inner, f"{name}_depthwise")
    inner = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project")(inner)
    inner = _normalize(inner, f"{name}_project", activate=False)
    if stride == 1 and width == filters:
        return layers.Add(name=f"{name}_add")([x, inner])
    return inner
