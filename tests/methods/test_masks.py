import numpy as np
import pytest

from edgesparse.methods.masks import magnitude_mask

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 32, 8))


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.9])
def test_unstructured_keeps_the_largest(sparsity):
    mask = magnitude_mask(KERNEL, sparsity, "unstructured")
    assert mask.mean() == pytest.approx(1 - sparsity, abs=1e-3)
    if sparsity > 0:
        assert np.abs(KERNEL[mask]).min() >= np.abs(KERNEL[~mask]).max()


@pytest.mark.parametrize(("pattern", "width"), [("block-1x4", 4), ("block-1x16", 16)])
def test_blocks_run_along_inputs(pattern, width):
    kernel = KERNEL[0, 0]
    mask = magnitude_mask(kernel, 0.75, pattern)
    assert mask.mean() == pytest.approx(0.25)
    blocks = mask.reshape(32 // width, width, 8)
    assert (blocks.all(axis=1) | ~blocks.any(axis=1)).all()
    size = np.abs(kernel).reshape(32 // width, width, 8).mean(axis=1)
    kept = blocks.any(axis=1)
    assert size[kept].min() >= size[~kept].max()


def test_two_of_every_four():
    mask = magnitude_mask(KERNEL, 0.9, "2:4")
    fours = mask.reshape(3, 3, 8, 4, 8)
    assert (fours.sum(axis=3) == 2).all()
    kept = np.abs(np.where(mask, KERNEL, np.inf)).reshape(3, 3, 8, 4, 8).min(axis=3)
    gone = np.abs(np.where(mask, 0, KERNEL)).reshape(3, 3, 8, 4, 8).max(axis=3)
    assert (kept >= gone).all()


def test_equal_weights_still_give_the_share():
    assert magnitude_mask(np.ones((4, 4)), 0.5, "unstructured").sum() == 8
