"""Shares of zeros of each kernel."""

import numpy as np
import pytest

from edgesparse.methods.network.keep_mask import (
    distribute,
    keep_mask,
    resolve_distribution,
)

RANDOM = np.random.default_rng(0)
KERNELS = {
    "early": (np.square(RANDOM.normal(0, 0.5, (3, 3, 8, 16))), "block-2x4"),
    "wide": (np.square(RANDOM.normal(0, 0.1, (1, 1, 64, 128))), "block-2x4"),
    "odd": (np.square(RANDOM.normal(0, 0.2, (30, 7))), "unstructured"),
}


@pytest.mark.parametrize("distribution", ["uniform", "erk", "global", "lamp"])
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_shares_reach_the_target_together(distribution, sparsity):
    shares = distribute(KERNELS, sparsity, distribution)
    kept = {name: keep_mask(*KERNELS[name][:1], shares[name], KERNELS[name][1]) for name in shares}
    size = sum(mask.size for mask in kept.values())
    zeros = sum(int((~mask).sum()) for mask in kept.values())
    assert zeros / size == pytest.approx(sparsity, abs=0.01)
    assert all(mask.reshape(-1, mask.shape[-1]).any(axis=0).all() for mask in kept.values())


def test_lamp_is_its_definition():
    squares = np.array([[4.0, 1.0], [9.0, 16.0]])
    # Scores: 1/30, 4/29, 9/25, 1 of each kernel; the scale of a kernel plays no part.
    both = {"a": (squares, "unstructured"), "b": (100 * squares, "unstructured")}
    assert distribute(both, 0.5, "lamp") == {"a": 0.5, "b": 0.5}
    assert distribute(both, 0.25, "global") == {"a": 0.5, "b": 0.0}


def test_lamp_takes_from_wide_kernels_first():
    shares = distribute(KERNELS, 0.8, "lamp")
    assert shares["wide"] > 0.85 > shares["early"]


def test_auto_is_lamp_for_blocks_in_convolutions():
    convolution, matrix = (3, 3, 8, 16), (8, 16)
    assert resolve_distribution("auto", [(convolution, "block-2x4"), (matrix, "2:4")]) == "lamp"
    assert resolve_distribution("auto", [(convolution, "2:4"), (matrix, "block-1x4")]) == "uniform"
    assert resolve_distribution("erk", [(matrix, "unstructured")]) == "erk"
