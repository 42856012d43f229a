"""Masks by magnitude: which weights of one kernel stay, for a pattern and a sparsity."""

from __future__ import annotations

import numpy as np

from edgesparse.spec.sparsify import Pattern

BLOCK: dict[str, int] = {"block-1x4": 4, "block-1x16": 16, "2:4": 4}


def magnitude_mask(kernel: np.ndarray, sparsity: float, pattern: Pattern) -> np.ndarray:
    """Which weights of a Keras kernel [..., inputs, outputs] stay: bool of its shape.

    Blocks run along the inputs and go by their mean magnitude, as tfmot's do; 2:4 keeps the two
    largest of every four inputs, whatever `sparsity` says.
    """
    size = np.abs(kernel)
    if pattern == "unstructured":
        return _largest(size, sparsity)
    width = BLOCK[pattern]
    *before, inputs, outputs = kernel.shape
    blocks = size.reshape(*before, inputs // width, width, outputs)
    if pattern == "2:4":
        # The rank of a rank: each weight's place within its four.
        rank = np.argsort(np.argsort(-blocks, axis=-2, kind="stable"), axis=-2)
        return (rank < width // 2).reshape(kernel.shape)
    kept = _largest(blocks.mean(axis=-2), sparsity)
    return np.repeat(kept[..., None, :], width, axis=-2).reshape(kernel.shape)


def _largest(size: np.ndarray, sparsity: float) -> np.ndarray:
    """All but a share of the smallest; the first of equals goes first."""
    kept = np.ones(size.size, bool)
    kept[np.argsort(size, axis=None, kind="stable")[: round(sparsity * size.size)]] = False
    return kept.reshape(size.shape)
