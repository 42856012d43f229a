"""A small network and data that it learns in seconds."""

import numpy as np
import pytest

from edgesparse import data


def quiet(share, text):
    pass


@pytest.fixture
def dataset():
    random = np.random.default_rng(0)
    y = random.integers(0, 4, 400)
    x = np.eye(4, dtype=np.float32)[y].repeat(8, axis=1).reshape(-1, 4, 8, 1)
    return data.from_arrays("toy", x + random.normal(0, 0.1, x.shape).astype(np.float32), y)


def network():
    import tensorflow as tf

    tf.keras.utils.set_random_seed(3)
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            tf.keras.Input((4, 8, 1)),
            layers.Conv2D(8, 3, name="stem"),
            layers.Conv2D(16, 1, name="point"),
            layers.DepthwiseConv2D(2, name="depth"),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="wide"),
            layers.Dense(4, activation="softmax", name="classifier"),
        ]
    )
