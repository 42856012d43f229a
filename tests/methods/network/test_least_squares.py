import numpy as np
import pytest

from edgesparse.methods.network import least_squares
from edgesparse.methods.network.keep_mask import block_scores
from edgesparse.methods.network.least_squares import (
    LEVELS,
    LayerStatistics,
    TiledStatistics,
    allocate_sparsity,
    empty_statistics,
    prune_weights,
    reconstruction_errors,
    too_large,
)

random = np.random.default_rng(0)
# Inputs that depend on one another: what goes can be made up for.
MIX = random.normal(size=(20, 64))
X = random.normal(size=(4000, 20)) @ MIX + 0.1 * random.normal(size=(4000, 64)) + 1.0
WEIGHTS = random.normal(size=(64, 32))


@pytest.fixture
def seen():
    found = LayerStatistics.empty(64, 32)
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
    assert seen.mean_output == pytest.approx((X @ WEIGHTS).mean(axis=0))
    assert seen.centred().inputs == pytest.approx(np.cov(X.T, bias=True), abs=1e-6)
    assert seen.error(WEIGHTS * 0.9) == pytest.approx(error(WEIGHTS * 0.9))
    assert seen.error(WEIGHTS) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("sparsity", [0.5, 0.7])
def test_the_others_make_up_for_what_goes(seen, sparsity):
    found = prune_weights(WEIGHTS, seen, sparsity, "unstructured")
    assert np.mean(found == 0) == pytest.approx(sparsity, abs=0.01)
    assert error(found) < 0.4 * error(smallest(sparsity))
    # On other inputs of the kind, too.
    other = np.random.default_rng(9).normal(size=(500, 20)) @ MIX + 1.0
    assert error(found, other) < 0.4 * error(smallest(sparsity), other)


@pytest.mark.parametrize(("pattern", "width"), [("block-1x4", 4), ("block-1x16", 16)])
def test_blocks_go_together(seen, pattern, width):
    found = prune_weights(WEIGHTS, seen, 0.5, pattern)
    blocks = (found != 0).reshape(-1, width, 32)
    assert np.all(blocks.any(axis=1) == blocks.all(axis=1))
    assert np.mean(found == 0) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("columns", [30, 128])
def test_blocks_lie_within_a_position_of_a_convolution(monkeypatch, columns):
    monkeypatch.setattr(least_squares, "COLUMNS", columns)
    random = np.random.default_rng(0)
    weights, x = random.normal(size=(9 * 6, 5)), random.normal(size=(300, 9 * 6))
    statistics = empty_statistics(weights, 6)
    statistics.add(x, x @ weights)
    found = prune_weights(weights, statistics, 0.8, "block-2x4", 6)
    kept, counts = block_scores(found.reshape(3, 3, 6, 5) != 0, "block-2x4")
    assert set(np.unique(kept / counts)) == {0.0, 1.0}
    assert kept.any(axis=0).all()
    assert np.mean(found == 0) == pytest.approx(0.8, abs=0.06)


def test_two_of_every_four_stay(seen):
    found = prune_weights(WEIGHTS, seen, 0.5, "2:4")
    assert np.all((found.reshape(-1, 4, 32) != 0).sum(axis=1) == 2)


def test_zeros_go_where_they_cost_least():
    cheap, dear = [0.01 * v for v in LEVELS], [10 * v for v in LEVELS]
    found = allocate_sparsity({"cheap": cheap, "dear": dear}, {"cheap": 1000, "dear": 1000}, 0.5)
    assert found["cheap"] == 0.95
    assert (found["cheap"] + found["dear"]) / 2 == pytest.approx(0.5, abs=0.01)
    everything = allocate_sparsity({"one": cheap}, {"one": 10}, 0.99)
    assert everything["one"] == LEVELS[-1]


@pytest.fixture
def in_tiles(monkeypatch):
    """A layer of 64 inputs and 32 outputs, as one of thousands is taken."""
    monkeypatch.setattr(least_squares, "TILE", 16)
    monkeypatch.setattr(least_squares, "COLUMNS", 16)
    found = empty_statistics(WEIGHTS)
    for part in np.array_split(X, 7):
        found.add(part, part @ WEIGHTS)
    return found


def test_what_is_too_large_for_one_matrix_of_moments_goes_in_parts(in_tiles, seen):
    assert isinstance(in_tiles, TiledStatistics)
    assert len(in_tiles.parts) == 4
    assert in_tiles.mean_input == pytest.approx(seen.mean_input)
    assert in_tiles.mean_output == pytest.approx(seen.mean_output)
    for pattern in ("unstructured", "block-1x4"):
        found = prune_weights(WEIGHTS, in_tiles.centred(), 0.5, pattern)
        assert np.mean(found == 0) == pytest.approx(0.5, abs=0.02)
        blocks = (found != 0).reshape(-1, 4, 32)
        assert pattern == "unstructured" or np.all(blocks.any(axis=1) == blocks.all(axis=1))
        # The mean is what a bias makes up for.
        off = np.square((X - X.mean(0)) @ (found - WEIGHTS)).mean()
        small = np.square((X - X.mean(0)) @ (smallest(0.5) - WEIGHTS)).mean()
        assert pattern != "unstructured" or off < 0.9 * small
    errors = reconstruction_errors(WEIGHTS, in_tiles.centred(), "unstructured")
    assert errors[0] == pytest.approx(0.0, abs=1e-3)
    assert errors == sorted(errors)


def test_levels_are_what_each_of_them_is_alone(seen):
    alone = [
        seen.error(prune_weights(WEIGHTS, seen, level, "unstructured", refit=False))
        for level in LEVELS
    ]
    assert reconstruction_errors(WEIGHTS, seen, "unstructured") == pytest.approx(alone)


def test_memory_has_a_bound():
    assert too_large(4608, 512) == ""
    assert too_large(25_088, 4096) == ""  # VGG16's, which took 35 GB at once.
    assert too_large(100_000, 8192).startswith("too large to reconstruct: 100,000 x 8,192 weights")


def test_of_many_outputs_some_tell_what_a_layer_bears(seen, monkeypatch):
    everything = reconstruction_errors(WEIGHTS, seen, "unstructured")
    monkeypatch.setattr(least_squares, "SAMPLED_OUTPUTS", 16)
    assert reconstruction_errors(WEIGHTS, seen, "unstructured") == pytest.approx(
        everything, rel=0.3, abs=0.02
    )
