"""What a step is asked for and what it reaches, for networks of every kind."""

import numpy as np
import pytest

from edgesparse import data
from edgesparse.methods.magnitude import magnitude
from edgesparse.methods.network.functional import functional
from edgesparse.methods.network.kernels import kernels
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Magnitude
from tests.methods.conftest import quiet
from tests.methods.networks import BUILDERS, TOKENS, shape_of
from tests.methods.test_matrix import check_reached

TRAIN = Train(epochs=1, batch_size=16, learning_rate=1e-3)


def prepared(name):
    random = np.random.default_rng(0)
    shape = shape_of(name)
    y = np.arange(64) % 4
    if shape == TOKENS:
        x = random.integers(0, 50, (64, *shape))
    else:
        x = random.random((64, *shape)).astype(np.float32)
    return functional(
        BUILDERS[name](), {"x": data.Tensor(shape, "float32")}, name
    ), data.from_arrays("toy", x, y)


def spec(**changes):
    return Magnitude(method="magnitude", **{"sparsity": 0.8, "epochs": 1, **changes})


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("name", ["gru", "attention", "grouped conv2d"])
def test_one_shot_magnitude_reaches_every_kind_of_layer(name):
    """With training it does so for every network of the matrix."""
    model, dataset = prepared(name)
    one_shot = TRAIN.model_copy(update={"epochs": 0})
    done = magnitude(model, dataset, one_shot, spec(epochs=0, allow_partial=True), quiet)
    check_reached(done)


def test_less_than_half_is_a_failure_unless_it_is_meant():
    model, dataset = prepared("dense")
    one_shot = TRAIN.model_copy(update={"epochs": 0})
    names = list(kernels(model))
    little = spec(epochs=0, exclude=names[:1])
    with pytest.raises(EdgesparseError, match=r"requested 80% sparsity, reached \d+%"):
        magnitude(model, dataset, one_shot, little, quiet)
    model, dataset = prepared("dense")
    names = list(kernels(model))
    done = magnitude(
        model, dataset, one_shot, spec(epochs=0, exclude=names[:1], allow_partial=True), quiet
    )
    assert [(layer.name, layer.reason) for layer in done.coverage.left_dense] == [
        (names[0], "excluded in the pipeline")
    ]


def test_a_layer_that_is_named_is_pruned_whatever_it_is():
    model, dataset = prepared("depthwise")
    name = next(n for n, k in kernels(model).items() if k.reason.startswith("depthwise"))
    one_shot = TRAIN.model_copy(update={"epochs": 0})
    done = magnitude(model, dataset, one_shot, spec(epochs=0, layers={name: {}}), quiet)
    assert name in {layer.name for layer in done.layers}


@pytest.mark.slow
def test_frozen_layers_are_trained_while_they_are_pruned():
    model, dataset = prepared("frozen")
    done = magnitude(model, dataset, TRAIN, spec(), quiet)
    assert done.notes == ("frozen layers that were trained during pruning: 2",)
    assert done.coverage.achieved > 0.6
