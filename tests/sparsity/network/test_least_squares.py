import numpy as np
import pytest

from edgesparse.sparsity.network.least_squares import LEVELS, Seen, allocated, pruned

random = np.random.default_rng(0)
# Inputs that depend on one another: what goes can be made up for.
MIX = random.normal(size=(20, 64))
X = random.normal(size=(4000, 20)) @ MIX + 0.1 * random.normal(size=(4000, 64)) + 1.0
WEIGHTS = random.normal(size=(64, 32))


@pytest.fixture
def seen():
    found = Seen.nothing(64, 32)
    for part in np.array_split(X, 7):
        found.add(part, part @ WEIGHTS)
    return found


def error(weights, x=X):
    wanted = x @ WEIGHTS
    return float(np.square(x @ weights - wanted).mean() / np.square(wanted).mean())


def smallest(share):
    kept = np.abs(WEIGHTS) > np.quantile(np.abs(WEIGHTS), share)
    return WEIGHTS * kept


def test_moments_are_those_of_all_rows(seen):
    assert seen.inputs == pytest.approx(X.T @ X / len(X))
    assert seen.mean_wanted == pytest.approx((X @ WEIGHTS).mean(axis=0))
    assert seen.centred().inputs == pytest.approx(np.cov(X.T, bias=True), abs=1e-6)
    assert seen.error(WEIGHTS * 0.9) == pytest.approx(error(WEIGHTS * 0.9))
    assert seen.error(WEIGHTS) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("sparsity", [0.5, 0.7])
def test_the_others_make_up_for_what_goes(seen, sparsity):
    found = pruned(WEIGHTS, seen, sparsity, "unstructured")
    assert np.mean(found == 0) == pytest.approx(sparsity, abs=0.01)
    assert error(found) < 0.4 * error(smallest(sparsity))
    # On other inputs of the kind, too.
    other = np.random.default_rng(9).normal(size=(500, 20)) @ MIX + 1.0
    assert error(found, other) < 0.4 * error(smallest(sparsity), other)


@pytest.mark.parametrize(("pattern", "width"), [("block-1x4", 4), ("block-1x16", 16)])
def test_blocks_go_together(seen, pattern, width):
    found = pruned(WEIGHTS, seen, 0.5, pattern)
    blocks = (found != 0).reshape(-1, width, 32)
    assert np.all(blocks.any(axis=1) == blocks.all(axis=1))
    assert np.mean(found == 0) == pytest.approx(0.5, abs=0.02)


def test_two_of_every_four_stay(seen):
    found = pruned(WEIGHTS, seen, 0.5, "2:4")
    assert np.all((found.reshape(-1, 4, 32) != 0).sum(axis=1) == 2)


def test_zeros_go_where_they_cost_least():
    cheap, dear = [0.01 * v for v in LEVELS], [10 * v for v in LEVELS]
    found = allocated({"cheap": cheap, "dear": dear}, {"cheap": 1000, "dear": 1000}, 0.5)
    assert found["cheap"] == 0.95
    assert (found["cheap"] + found["dear"]) / 2 == pytest.approx(0.5, abs=0.01)
    everything = allocated({"one": cheap}, {"one": 10}, 0.99)
    assert everything["one"] == LEVELS[-1]
