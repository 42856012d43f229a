"""Kernels with a few values each."""

import numpy as np
import pytest

from edgesparse.methods.magnitude import magnitude
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.training import fitting as training
from edgesparse.methods.weight_sharing import weight_sharing
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Magnitude, WeightSharing
from tests.methods.conftest import network, quiet
from tests.methods.test_coverage import prepared

pytestmark = pytest.mark.slow
TRAIN = Train(epochs=2, batch_size=16, learning_rate=1e-3)


def values(model, name):
    return np.unique(kernels(model)[name].variable.numpy())


def clustered(model, dataset, **given):
    return weight_sharing(
        model, dataset, TRAIN, WeightSharing(method="weight-sharing", **given), quiet
    )


def test_each_kernel_has_so_many_values_and_still_learns(trained_network, dataset):
    done = clustered(trained_network, dataset, clusters=8)
    assert len(values(done.model, "wide")) <= 8
    assert len(values(done.model, "classifier")) <= 8
    assert training.scores(done.model, dataset)["accuracy"] > 0.9
    assert done.keeps_layers
    assert "3 kernels have 8 values each" in done.notes[0]
    assert "stem: sees only 1 channels" in done.notes[0]


def test_zeros_stay_zeros(dataset):
    once = TRAIN.model_copy(update={"epochs": 1})
    sparse = magnitude(
        network(), dataset, once, Magnitude(method="magnitude", sparsity=0.8, epochs=1), quiet
    )
    before = {n: np.mean(k.variable.numpy() == 0) for n, k in kernels(sparse.model).items()}
    done = clustered(sparse.model, dataset, clusters=4)
    for name in ("wide", "classifier", "point"):
        kernel = kernels(done.model)[name].variable.numpy()
        assert np.mean(kernel == 0) >= before[name]
        assert len(np.unique(kernel)) <= 5


@pytest.mark.parametrize(
    "name",
    [
        "separable conv2d",
        "own layer",
        pytest.param("conv1d", marks=pytest.mark.full),
        pytest.param("embedding", marks=pytest.mark.full),
        pytest.param("gru", marks=pytest.mark.full),
    ],
)
def test_what_cannot_be_clustered_is_said(name):
    model, dataset = prepared(name)
    done = clustered(model, dataset)
    found = {layer.name for layer in done.layers}
    for kernel in kernels(done.model):
        assert len(values(done.model, kernel)) <= 17 or kernel not in found
        assert kernel in found or kernel in done.notes[0]


def test_what_is_excluded_stays(dataset):
    model = network()
    before = model.get_layer("wide").kernel.numpy()
    done = clustered(model, dataset, exclude=["wi*"])
    assert len(np.unique(before)) > 100
    assert len(values(done.model, "wide")) > 100
    with pytest.raises(
        UsageError, match="'wide2' matches no layer with a kernel; did you mean 'wide'"
    ):
        clustered(network(), dataset, exclude=["wide2"])
    with pytest.raises(UsageError, match="no layer can be made sparse"):
        clustered(network(), dataset, exclude=["*"])
