"""Zeros between layers."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.methods.activations import Penalty, activations, overall, zero_shares
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.training import fitting
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Activations
from tests.methods.conftest import network, quiet
from tests.methods.digits import TUNE, accuracy, load, trained

L = tf.keras.layers


@pytest.fixture(scope="module")
def digits():
    return load()


def small_cnn(activation="relu"):
    tf.keras.utils.set_random_seed(2)
    x = image = tf.keras.Input((8, 8, 1))
    for width in (16, 32):
        x = L.Conv2D(width, 3, activation=activation)(x)
    return tf.keras.Model(image, L.Dense(10, "softmax")(L.Flatten()(x)))


def samples(dataset):
    from edgesparse.data import representative

    return [representative(dataset, 64)["x"]]


def trained_cnn(weights_of, digits, activation="relu"):
    def train():
        model = small_cnn(activation)
        fitting.fit(model, digits, Train(epochs=8, learning_rate=3e-3), quiet)
        return model

    weights = weights_of(f"cnn-{activation}", train)
    model = small_cnn(activation)
    model.set_weights(weights)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "penalty"),
    [
        ("mlp", "l1"),
        pytest.param("mlp", "hoyer", marks=pytest.mark.full),
        pytest.param("cnn", "hoyer", marks=pytest.mark.full),
        pytest.param("cnn", "l1", marks=pytest.mark.full),
    ],
)
def test_twenty_points_more_within_a_point_of_accuracy(digits, weights_of, kind, penalty):
    model = trained(weights_of, digits) if kind == "mlp" else trained_cnn(weights_of, digits)
    before, zeros = accuracy(model, digits), overall(zero_shares(model, samples(digits)))
    spec = Activations(method="activations", penalty=penalty, epochs=10)
    done = activations(model, digits, TUNE, spec, quiet)
    after = overall(zero_shares(done.model, samples(digits)))
    assert after >= zeros + 0.2, (zeros, after)
    assert accuracy(done.model, digits) >= before - 0.01
    assert done.keeps_layers
    assert "zeros in outputs of ReLU layers: " in done.notes[-1]
    assert not done.model.losses  # The penalty went with the training.


@pytest.mark.slow
def test_smooth_activations_become_rectifiers(digits, weights_of):
    model = trained_cnn(weights_of, digits, "gelu")
    before = accuracy(model, digits)
    assert zero_shares(model, samples(digits)) == {}
    done = activations(model, digits, TUNE, Activations(method="activations", penalty=None), quiet)
    assert overall(zero_shares(done.model, samples(digits))) > 0.2
    assert accuracy(done.model, digits) >= before - 0.02
    assert not done.keeps_layers
    assert "smooth activations replaced by ReLU" in done.notes[0]


@pytest.mark.slow
def test_zeros_of_weights_stay(dataset):
    model = network()
    kernel = kernels(model)["wide"].variable
    kernel.assign(tf.where(tf.abs(kernel) < 0.1, 0.0, kernel))
    zero = kernel.numpy() == 0
    activations(model, dataset, Train(epochs=1), Activations(method="activations", epochs=1), quiet)
    assert np.array_equal(kernel.numpy() == 0, zero)


def test_a_model_without_rectifiers_is_an_error(dataset):
    spec = Activations(method="activations", to_relu=False)
    model = small_cnn("gelu")
    with pytest.raises(UsageError, match=r"the model has gelu, softmax: set 'to_relu: true'"):
        activations(model, dataset_of(model), TUNE, spec, quiet)
    with pytest.raises(UsageError, match="matches no layer"):
        activations(network(), dataset, TUNE, spec.model_copy(update={"exclude": ["x*"]}), quiet)


def dataset_of(model):
    from edgesparse.data import from_arrays

    return from_arrays("any", np.zeros((200, 8, 8, 1), np.float32), np.arange(200) % 10)


def test_penalties():
    few = tf.constant([[0.0, 0.0, 0.0, 4.0]])
    many = tf.constant([[1.0, 1.0, 1.0, 1.0]])
    hoyer = Penalty("hoyer", 1.0)
    assert float(hoyer(few)) == pytest.approx(0.25)
    assert float(hoyer(many)) == pytest.approx(1.0)
    assert float(Penalty("l1", 0.5)(many)) == pytest.approx(0.5)
    assert Penalty.from_config(hoyer.get_config()).kind == "hoyer"
