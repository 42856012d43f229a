"""A small network on scikit-learn's digits, trained once for all tests."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from edgesparse import data
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.training import fitting
from edgesparse.models.mlp import mlp
from edgesparse.spec.pipeline import Source, Train
from tests.methods.conftest import quiet

TUNE = Train(epochs=10, batch_size=32, learning_rate=1e-3)


def load():
    return data.load(Source(name="digits", args={"input_shape": [8, 8, 1]}), Path())


def built(seed=1):
    tf.keras.utils.set_random_seed(seed)
    return mlp([8, 8, 1], 10, [256, 256])


def trained(weights_of, dataset, seed=1):
    """The network after its training, which the fixture `weights_of` keeps."""

    def train():
        model = built(seed)
        fitting.fit(model, dataset, Train(epochs=12, learning_rate=1e-3, seed=seed), quiet)
        return model

    weights = weights_of(f"digits-{seed}", train)
    model = built(seed)
    model.set_weights(weights)
    return model


def accuracy(model, dataset):
    return fitting.scores(model, dataset)["accuracy"]


def zeros(model):
    """The share of zeros in all kernels."""
    values = [kernel.variable.numpy() for kernel in kernels(model).values()]
    return sum(int(np.sum(k == 0)) for k in values) / sum(k.size for k in values)
