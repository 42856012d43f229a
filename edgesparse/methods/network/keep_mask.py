"""Which weights stay, by how much each matters, in a pattern along the inputs. Only NumPy."""

from __future__ import annotations

import numpy as np

from edgesparse.spec.sparsify import BLOCK, Pattern


def kept(size: np.ndarray, sparsity: float, pattern: Pattern) -> np.ndarray:
    """Bool of the shape of `size` [..., inputs, outputs], by which weights are told apart.

    Blocks run along the inputs and go by their mean, as tfmot's do; 2:4 keeps the two largest of
    every four inputs, whatever `sparsity` says.
    """
    if pattern == "unstructured":
        return _largest(size, sparsity)
    width = BLOCK[pattern]
    blocks = in_blocks(size, width)
    if pattern == "2:4":
        # The rank of a rank: each weight's place within its four.
        rank = np.argsort(np.argsort(-blocks, axis=-2, kind="stable"), axis=-2)
        return (rank < width // 2).reshape(size.shape)
    found = _largest(blocks.mean(axis=-2), sparsity)
    return np.repeat(found[..., None, :], width, axis=-2).reshape(size.shape)


def in_blocks(kernel: np.ndarray, width: int) -> np.ndarray:
    """A kernel [..., inputs, outputs] as [..., blocks, width, outputs]."""
    *before, inputs, outputs = kernel.shape
    return kernel.reshape(*before, inputs // width, width, outputs)


def _largest(size: np.ndarray, sparsity: float) -> np.ndarray:
    """All but a share of the smallest; the first of equals goes first."""
    found = np.ones(size.size, bool)
    found[np.argsort(size, axis=None, kind="stable")[: round(sparsity * size.size)]] = False
    return found.reshape(size.shape)
