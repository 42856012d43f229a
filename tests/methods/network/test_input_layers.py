"""Whether a model scales pixels itself, and takes what the data gives."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.data import from_arrays
from edgesparse.methods.network.input_layers import check_ids, pixels_scaled_by
from edgesparse.spec.errors import UsageError

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


def test_token_ids_without_a_row_in_the_table_are_refused_with_both_ranges():
    i = tf.keras.Input((5,), dtype="int32", name="tokens")
    model = tf.keras.Model(i, L.GlobalAveragePooling1D()(L.Embedding(20, 4, name="table")(i)))
    ids = np.arange(500).reshape(100, 5) % 20
    check_ids(model, from_arrays("text", ids, np.arange(100) % 2), ["x"])
    ids[-1, 0] = 20  # Whichever split that is in.
    with pytest.raises(
        UsageError, match=r"input x has token ids from 0 to 20; .* layer table .* takes 0 to 19"
    ):
        check_ids(model, from_arrays("text", ids, np.arange(100) % 2), ["x"])
