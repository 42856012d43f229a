"""Whether a model scales pixels itself."""

import pytest
import tensorflow as tf

from edgesparse.sparsity.network.inputs import pixels_scaled_by

L = tf.keras.layers


def behind(*layers):
    x = inputs = tf.keras.Input((8, 8, 3))
    for layer in layers:
        x = layer(x)
    return tf.keras.Model(inputs, L.Dense(2)(L.Flatten()(x)))


@pytest.mark.parametrize(
    ("layers", "scales"),
    [
        (lambda: [L.Rescaling(1 / 255, name="it")], True),
        (lambda: [L.RandomFlip(), L.Resizing(8, 8), L.Rescaling(1 / 127.5, -1, name="it")], True),
        (lambda: [L.Normalization(mean=[120.0, 110, 100], variance=4000.0, name="it")], True),
        (lambda: [behind(L.Rescaling(1 / 255, name="it"))], True),
        (lambda: [tf.keras.applications.mobilenet.preprocess_input], True),
        (lambda: [L.Rescaling(2.0, -1)], False),
        (lambda: [L.Normalization(mean=0.5, variance=0.1)], False),
        (lambda: [L.Normalization()], False),
        (lambda: [L.Conv2D(3, 3), L.Rescaling(1 / 255)], False),
        (lambda: [], False),
    ],
)
def test_layers_that_scale_pixels_are_seen_at_the_beginning(layers, scales):
    tf.keras.backend.clear_session()
    found = pixels_scaled_by(behind(*layers()))
    assert (found in ("it", "tf.math.truediv")) if scales else found is None
