"""Networks that are sparse from the first step on."""

import numpy as np
import pytest

from edgesparse.methods import rigl as module
from edgesparse.methods.magnitude import magnitude
from edgesparse.methods.network.keep_mask import erk
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.rigl import reinitialize, rigl
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Magnitude, Rigl
from tests.methods.conftest import network, quiet
from tests.methods.digits import TUNE, accuracy, built, load, trained, zeros


@pytest.fixture(scope="module")
def digits():
    return load()


def test_densities_sum_up_and_none_is_more_than_one():
    found = kernels(built())
    shapes = {name: kernel.shape for name, kernel in found.items()}
    for density in (0.05, 0.2, 0.7):
        chosen = erk(shapes, density)
        total = sum(kernel.size for kernel in found.values())
        weights = sum(chosen[name] * kernel.size for name, kernel in found.items())
        assert weights == pytest.approx(density * total)
        assert 0 < min(chosen.values()) <= max(chosen.values()) <= 1
    # Smaller layers keep a larger share.
    assert erk(shapes, 0.05)["classifier"] > erk(shapes, 0.05)["dense_1"]


def test_new_weights_are_new():
    model = built()
    before = [w.copy() for w in model.get_weights()]
    assert reinitialize(model, 9) == []
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert sum(changed) == len(kernels(model))  # Biases are zero again.


@pytest.fixture
def densities(monkeypatch):
    """What a network holds before each step, as shares of what it is to hold."""
    shares = []

    class Watched(module.MoveConnections):
        def on_train_batch_begin(self, batch, logs=None):
            super().on_train_batch_begin(batch, logs)
            for moving in self.moving:
                shares.append(np.count_nonzero(moving.variable.numpy()) / moving.count)

    monkeypatch.setattr(module, "MoveConnections", Watched)
    return shares


def grown(digits, densities, train):
    spec = Rigl(method="rigl", sparsity=0.95, epochs=train.epochs)
    done = rigl(built(train.seed), digits, train, spec, quiet)
    assert zeros(done.model) == pytest.approx(0.95, abs=0.005)
    assert max(densities) <= 1.5
    assert "never more than 4,2" in done.notes[-1]
    return done.model


@pytest.mark.slow
def test_it_never_holds_more(digits, densities):
    grown(digits, densities, TUNE.model_copy(update={"seed": 1, "epochs": 4}))


@pytest.mark.slow
@pytest.mark.full
def test_it_is_as_accurate_as_magnitude(digits, densities, weights_of):
    ours, theirs = [], []
    for seed in (1, 2, 3):
        train = TUNE.model_copy(update={"seed": seed, "epochs": 30})
        ours.append(accuracy(grown(digits, densities, train), digits))
        spec = Magnitude(method="magnitude", sparsity=0.95, epochs=18)
        dense = trained(weights_of, digits, seed)  # Twelve epochs.
        tune = train.model_copy(update={"epochs": 18})
        theirs.append(accuracy(magnitude(dense, digits, tune, spec, quiet).model, digits))
    assert np.mean(ours) >= np.mean(theirs) - 0.01, (ours, theirs)


@pytest.mark.slow
def test_connections_move(digits):
    train = Train(epochs=3, learning_rate=1e-3)
    spec = Rigl(method="rigl", sparsity=0.9, epochs=3, from_scratch=False)
    model = built()
    weights = kernels(model)["dense_1"].variable.numpy()
    first = set(np.argsort(-np.abs(weights).ravel())[: round(0.1 * weights.size)])
    done = rigl(model, digits, train, spec, quiet)
    last = set(np.flatnonzero(kernels(done.model)["dense_1"].variable.numpy()))
    assert len(last - first) > 0.05 * len(last)


@pytest.mark.slow
def test_what_stays_dense_is_made_up_for(dataset):
    train = Train(epochs=2, learning_rate=1e-3)
    done = rigl(network(), dataset, train, Rigl(method="rigl", sparsity=0.8, epochs=2), quiet)
    assert done.coverage.achieved == pytest.approx(0.8, abs=0.02)
    assert {left.name for left in done.coverage.left_dense} >= {"stem"}
    spec = Rigl(method="rigl", sparsity=0.9, epochs=1, exclude=["wide"])
    with pytest.raises(EdgesparseError, match="left dense: wide"):
        rigl(network(), dataset, train.model_copy(update={"epochs": 1}), spec, quiet)
