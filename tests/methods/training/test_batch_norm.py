import numpy as np
import pytest
import tensorflow as tf

from edgesparse import data
from edgesparse.methods.training import batch_norm, fitting
from edgesparse.spec.pipeline import Train


@pytest.fixture
def dataset():
    """Far from zero, so that statistics that were never learned are far off."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 300)
    x = np.eye(3, dtype=np.float32)[y] * 4 + random.normal(50, 0.3, (300, 3))
    return data.from_arrays("toy", x.repeat(4, axis=1).astype(np.float32), y)


def network():
    """Its moving averages need thousands of steps."""
    tf.keras.utils.set_random_seed(5)
    layers = tf.keras.layers
    i = tf.keras.Input((12,))
    x = layers.BatchNormalization(momentum=0.9999)(i)
    x = layers.Dense(16, activation="relu")(x)
    return tf.keras.Model(i, layers.Dense(3, activation="softmax")(x))


def fitted(dataset, **changes):
    model = network()
    train = Train(epochs=5, learning_rate=1e-2, **changes)
    history = fitting.fit(model, dataset, train, lambda *_: None)
    return model, history, fitting.scores(model, dataset)["accuracy"]


@pytest.mark.slow
def test_statistics_that_are_behind_are_recomputed_and_that_is_said(dataset):
    _, history, accuracy = fitted(dataset)
    assert accuracy > 0.95
    before, after = history[fitting.RECALIBRATED]
    assert before < 0.8 < 0.95 < after
    (note,) = fitting.training_notes(history)
    assert "batch-norm statistics were stale" in note
    # Nobody would know otherwise.
    _, history, accuracy = fitted(dataset, recalibrate_batch_norm=False)
    assert accuracy < 0.8
    assert fitting.RECALIBRATED not in history


@pytest.mark.slow
def test_what_is_settled_stays_as_it_is(dataset):
    model, _, _ = fitted(dataset)
    (layer,) = batch_norm.recalibratable(model)
    means = layer.moving_mean.numpy()
    batches = dataset.train.samples.batch(32)
    batch_norm.recalibrate(model, batches)
    assert layer.moving_mean.numpy() == pytest.approx(means, rel=0.01)
    assert layer.momentum == 0.9999
    x = np.concatenate([x for x, _ in batches.as_numpy_iterator()])
    assert layer.moving_mean.numpy() == pytest.approx(x.mean(axis=0), rel=1e-3)
