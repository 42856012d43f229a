"""One layer at a time; what follows keeps the accuracy that was asked for."""

import numpy as np
import pytest

from edgesparse.methods.choosing import sensitivity
from edgesparse.methods.choosing.sensitivity import LayerCurve, Sensitivity
from edgesparse.spec.errors import UsageError
from edgesparse.spec.sparsify import Magnitude
from tests.methods.conftest import quiet

LEVELS = (0.5, 0.9)
CURVES = Sensitivity(
    0.9,
    (0.5, 0.7, 0.9),
    (
        LayerCurve("robust", "unstructured", 100, (0.9, 0.9, 0.88)),
        LayerCurve("fragile", "unstructured", 100, (0.87, 0.4, 0.1)),
        # What comes after a level that lost too much does not count.
        LayerCurve("odd", "block-1x4", 100, (0.9, 0.2, 0.9)),
    ),
)


def test_a_proposal_takes_the_highest_level_that_each_layer_bears():
    assert CURVES.proposal(0.02) == {"robust": 0.9, "fragile": 0.0, "odd": 0.5}
    assert CURVES.proposal(0.03) == {"robust": 0.9, "fragile": 0.5, "odd": 0.5}
    assert CURVES.proposal(0.0) == {"robust": 0.7, "fragile": 0.0, "odd": 0.5}


def test_candidates_come_sparsest_first_and_once():
    found = CURVES.candidates(0.02)
    totals = [sum(candidate.values()) for candidate in found]
    assert totals == sorted(totals, reverse=True)
    assert len(found) == len({tuple(c.items()) for c in found})
    assert CURVES.proposal(0.0) in found
    assert found[-1] == {"robust": 0.5, "fragile": 0.0, "odd": 0.5}


@pytest.mark.slow
def test_each_layer_is_pruned_alone_and_restored(trained_network, dataset):
    model = trained_network
    before = [w.copy() for w in model.get_weights()]
    told = []
    spec = Magnitude(method="magnitude", sparsity=0.5, exclude=["classifier"])
    found = sensitivity.measure(
        model, dataset, spec, lambda share, text: told.append(share), LEVELS
    )
    assert [curve.name for curve in found.layers] == ["point", "wide"]
    assert found.levels == LEVELS
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert found.accuracy == pytest.approx(sensitivity.validation_accuracy(model, dataset))
    # By hand, for one layer and level.
    kernel = model.get_layer("wide").kernel
    values = kernel.numpy()
    limit = np.quantile(np.abs(values), 0.9)
    kernel.assign(np.where(np.abs(values) >= limit, values, 0))
    by_hand = sensitivity.validation_accuracy(model, dataset)
    kernel.assign(values)
    assert found.layers[1].accuracy[1] == pytest.approx(by_hand, abs=0.03)


@pytest.mark.slow
def test_a_proposal_is_checked_with_all_layers_at_once(trained_network, dataset):
    model = trained_network
    spec = Magnitude(method="magnitude", sparsity=0.5)
    found = sensitivity.measure(model, dataset, spec, quiet)
    before = [w.copy() for w in model.get_weights()]
    proposal = sensitivity.propose(model, dataset, found, 0.05)
    assert proposal is not None
    assert proposal.accuracy >= found.accuracy - 0.05
    assert sum(proposal.sparsities.values()) > 0
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    hopeless = Sensitivity(2.0, found.levels, found.layers)
    assert sensitivity.propose(model, dataset, hopeless, 0.05) is None


@pytest.mark.slow
def test_a_glob_that_matches_nothing_is_told(trained_network, dataset):
    model = trained_network
    spec = Magnitude(method="magnitude", sparsity=0.5, exclude=["poinnt"])
    with pytest.raises(UsageError, match="'poinnt' matches no layer"):
        sensitivity.measure(model, dataset, spec, quiet)
