"""Masks of the weights to keep, by their scores, in a pattern along the inputs. NumPy only."""

from __future__ import annotations

import numpy as np

from edgesparse.spec.sparsify import BLOCK, Pattern


def keep_mask(size: np.ndarray, sparsity: float, pattern: Pattern) -> np.ndarray:
    """Return the weights to keep, bool in the shape of their scores `size` [..., inputs, outputs].

    Blocks run along the inputs and are ranked by their mean, as in tfmot; 2:4 keeps the two largest
    of every four inputs and ignores `sparsity`.
    """
    if pattern == "unstructured":
        return _largest(size, sparsity)
    width = BLOCK[pattern]
    blocks = split_blocks(size, width)
    if pattern == "2:4":
        # argsort of argsort: each weight's rank within its four.
        rank = np.argsort(np.argsort(-blocks, axis=-2, kind="stable"), axis=-2)
        return (rank < width // 2).reshape(size.shape)
    mask = _largest(blocks.mean(axis=-2), sparsity)
    return np.repeat(mask[..., None, :], width, axis=-2).reshape(size.shape)


def split_blocks(kernel: np.ndarray, width: int) -> np.ndarray:
    """Reshape a kernel [..., inputs, outputs] to [..., blocks, width, outputs]."""
    *before, inputs, outputs = kernel.shape
    return kernel.reshape(*before, inputs // width, width, outputs)


def _largest(size: np.ndarray, sparsity: float) -> np.ndarray:
    """Return True for all but a share of the smallest; of equals the first are dropped."""
    mask = np.ones(size.size, bool)
    mask[np.argsort(size, axis=None, kind="stable")[: round(sparsity * size.size)]] = False
    return mask.reshape(size.shape)
