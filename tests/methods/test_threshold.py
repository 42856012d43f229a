"""Weights below a limit."""

import numpy as np
import pytest

from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.threshold import threshold
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Threshold
from tests.methods.conftest import network, quiet

TRAIN = Train(epochs=2, batch_size=16, learning_rate=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("given", [{"value": 0.1}, {"relative": 0.7}])
def test_what_is_small_goes_and_stays_away(dataset, given):
    model = network()
    before = {name: k.variable.numpy().copy() for name, k in kernels(model).items()}
    done = threshold(model, dataset, TRAIN, Threshold(method="threshold", **given), quiet)
    for name in ("wide", "point"):
        limit = given.get("value") or given["relative"] * np.std(before[name])
        after = kernels(done.model)[name].variable.numpy()
        assert np.array_equal(after == 0, np.abs(before[name]) < limit)
        assert 0.05 < np.mean(after == 0) < 0.95
    assert "of the weights were below the limit" in done.notes[-1]
    assert "stem" not in {layer.name for layer in done.layers}  # It sees one channel.


def test_a_limit_above_all_weights_is_an_error(dataset):
    with pytest.raises(EdgesparseError, match="all weights are below the limit"):
        threshold(network(), dataset, TRAIN, Threshold(method="threshold", value=50.0), quiet)
