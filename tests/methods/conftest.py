"""A small network, data that it learns in seconds, and trainings that tests share."""

import fcntl

import numpy as np
import pytest

from edgesparse import data
from edgesparse.spec.pipeline import Train


def quiet(share, text):
    pass


def random_data(model):
    """Inputs that a model takes, for what needs no labels."""
    random = np.random.default_rng(0)
    inputs = {
        t.name: random.integers(0, 9, (40, *(n or 8 for n in t.shape[1:]))).astype(t.dtype.name)
        for t in model.inputs
    }
    values = list(inputs.values())
    return data.from_arrays("any", inputs if len(values) > 1 else values[0], np.arange(40) % 2)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def weights_of(shared):
    """`weights_of(name, build)`: the weights of the trained model that `build` gives. Each name is
    trained by the first of pytest's processes that asks, and read by all others."""
    folder = shared / "trained"
    folder.mkdir(exist_ok=True)

    def weights(name, build):
        path = folder / f"{name}.npz"
        with path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                part = folder / f"{name}.part.npz"
                np.savez(part, *build().get_weights())
                part.rename(path)
        with np.load(path) as stored:
            return [stored[f"arr_{i}"] for i in range(len(stored.files))]

    return weights


@pytest.fixture
def trained_network(weights_of, dataset):
    """`network()` when it has learned `dataset`, to do anything with."""
    from edgesparse.methods.training import fitting

    def trained():
        model = network()
        fitting.fit(model, dataset, Train(epochs=8, learning_rate=3e-3), quiet)
        return model

    weights = weights_of("network", trained)
    model = network()
    model.set_weights(weights)
    return model
