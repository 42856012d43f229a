"""scikit-learn's 1 797 handwritten digits (UCI Optical Recognition of Handwritten Digits)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgesparse.data import Dataset, from_arrays, transforms
from edgesparse.spec.errors import UsageError


def digits(input_shape: Sequence[int] = (32, 32, 3)) -> Dataset:
    """Load the digits, resized bilinearly from 8x8 to [height, width, channels], float32 0 to 1."""
    import tensorflow as tf
    from sklearn.datasets import load_digits

    if len(input_shape) != 3 or min(input_shape) < 1:
        raise UsageError(
            f"digits: input_shape must be [height, width, channels], not {list(input_shape)}"
        )
    height, width, channels = input_shape
    x, y = load_digits(return_X_y=True)
    images = x.reshape(-1, 8, 8, 1).astype(np.float32) / 16.0
    if (height, width) != (8, 8):
        images = tf.image.resize(images, (height, width)).numpy()
    images = np.repeat(images, channels, axis=-1)
    names = [str(i) for i in range(10)]
    raw = transforms.image(input_shape, order="grey")
    return from_arrays("digits", images, y, names, transforms=raw)
