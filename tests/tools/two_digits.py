"""A hard task: two handwritten digits in clutter, 100 classes, and a network for it."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from edgesparse.data import Dataset, from_splits

L = tf.keras.layers
# (filters, stride) of the depthwise-separable blocks.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 1), (256, 1), (256, 1))


def images(count: int = 6000, test_count: int = 2000, size: int = 16) -> Dataset:
    """Draw numbers of two digits, 00 to 99, in clutter: images [size, size, 1] and 100 classes.

    Each half holds a digit at a random height; pieces of other digits and noise lie over both.
    Digits of the test images are never seen in training.
    """
    random = np.random.default_rng(0)
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8, 1).astype(np.float32)
    parts = np.split(random.permutation(len(x)), [int(0.7 * len(x)), int(0.8 * len(x))])

    def drawn(source: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        canvases = random.normal(0, 0.1, (number, size, size, 1)).astype(np.float32)
        pairs = random.choice(source, (number, 2))
        for canvas, pair in zip(canvases, pairs, strict=True):
            for half, index in enumerate(pair):
                top = random.integers(0, size - 7)
                left = random.integers(0, size // 2 - 7) + half * size // 2
                canvas[top : top + 8, left : left + 8] += x[index]
            for index in random.choice(source, 3):
                top, left = random.integers(0, size - 3, 2)
                canvas[top : top + 4, left : left + 4] += 0.7 * x[index, 2:6, 2:6]
        return np.clip(canvases, 0, 1), y[pairs[:, 0]] * 10 + y[pairs[:, 1]]

    counts = (count, count // 8, test_count)
    return from_splits("two-digits", *(drawn(*part) for part in zip(parts, counts, strict=True)))


def network(size: int = 16) -> tf.keras.Model:
    """Six depthwise-separable blocks, wide for their number: a small MobileNet."""

    def normalized(x: tf.Tensor) -> tf.Tensor:
        return L.ReLU(6.0)(L.BatchNormalization(momentum=0.9)(x))

    inputs = tf.keras.Input((size, size, 1))
    x = normalized(L.Conv2D(32, 3, 2, "same", use_bias=False)(inputs))
    for filters, stride in BLOCKS:
        x = normalized(L.DepthwiseConv2D(3, stride, "same", use_bias=False)(x))
        x = normalized(L.Conv2D(filters, 1, use_bias=False)(x))
    x = L.GlobalAveragePooling2D()(x)
    return tf.keras.Model(inputs, L.Dense(100, "softmax")(x))
