"""Fake-quantization is put around layers without a change of what they give."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import data
from edgesparse.methods import quantize_aware
from edgesparse.methods.training import fitting
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Train

L = tf.keras.layers
RANDOM = np.random.default_rng(0)
LEFT, RIGHT = (RANDOM.normal(size=(64, n)).astype("float32") for n in (6, 4))


def quiet(share, text):
    pass


def concatenated(order):
    left, right = tf.keras.Input((6,)), tf.keras.Input((4,))
    parts = [right, L.Dense(8, "relu")(left), L.Dense(5)(left)]
    return tf.keras.Model([left, right], L.Dense(3)(L.Concatenate()([parts[n] for n in order])))


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (2, 1), (2, 0, 1)])
def test_parts_of_a_concatenation_keep_their_order(order):
    model = concatenated(order)
    prepared = quantize_aware.prepare(model).model
    quantize_aware.check(prepared, model, [LEFT, RIGHT])


def test_what_the_toolkit_changes_names_the_layer(monkeypatch):
    monkeypatch.setattr(quantize_aware, "_in_order", lambda find: find)
    model = concatenated((0, 1))
    prepared = quantize_aware.prepare(model).model
    with pytest.raises(
        EdgesparseError,
        match=r"preparing quantization-aware training changed .*, from layer concatenate\S* on",
    ):
        quantize_aware.check(prepared, model, [LEFT, RIGHT])


def test_an_adapted_normalization_keeps_its_statistics():
    x = LEFT * 3 + 50
    normalization = L.Normalization()
    normalization.adapt(x)
    inputs = tf.keras.Input((6,))
    model = tf.keras.Model(inputs, L.Dense(3)(L.Dense(8, "relu")(normalization(inputs))))
    prepared = quantize_aware.prepare(model).model
    quantize_aware.check(prepared, model, x)


def photos():
    """0 to 255, as they come."""
    y = RANDOM.integers(0, 3, 300)
    x = RANDOM.integers(0, 120, (300, 12, 12, 3))
    for place, kind in enumerate(y):
        x[place, 2:10, 2:10, kind] += 60
    return data.from_arrays("photos", x.astype("float32"), y)


@pytest.mark.slow
def test_ranges_begin_at_those_of_the_data():
    """The toolkit's own reach hundreds after thousands of steps only."""
    layers = [L.Conv2D(12, 3, activation="relu"), L.Flatten(), L.Dense(3, "softmax")]
    model, dataset = tf.keras.Sequential([tf.keras.Input((12, 12, 3)), *layers]), photos()
    fitting.fit(model, dataset, Train(epochs=6), quiet)
    before = fitting.scores(model, dataset)["accuracy"]
    prepared, _ = quantize_aware.quantize_aware(
        model, dataset, Train(epochs=1, learning_rate=1e-5), quiet
    )
    assert before > 0.9
    assert fitting.scores(prepared.model, dataset)["accuracy"] > before - 0.05
