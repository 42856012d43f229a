"""Masks of the weights to keep, by their scores, in a pattern of outputs x inputs; and shares of
zeros of each kernel, for a share over all of them. NumPy only.

Every output keeps a weight, or a block: outputs without weights get int8 scales that ruin the
others' (a MobileNet of digits with 16 of 24 such outputs in a layer: 97 -> 36 % accuracy).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from edgesparse.spec.step import BLOCKS, Distribution, Pattern, block_shape


@dataclass(frozen=True)
class Grid:
    """The blocks of a kernel as a matrix [rows, outputs], whose rows are the inputs of each
    position in turn. `groups`: the rows of each block [blocks, width], -1 beyond the edge."""

    pattern: Pattern
    groups: np.ndarray

    @classmethod
    def of(cls, rows: int, channels: int, pattern: Pattern) -> Grid:
        """Return the blocks of positions with `channels` inputs each."""
        width = block_shape(pattern)[1]
        group = np.arange(0, channels, width)[:, None] + np.arange(width)
        starts = np.arange(0, rows, max(1, channels))[:, None, None]
        return cls(pattern, np.where(group < channels, starts + group, -1).reshape(-1, width))

    def rows(self, span: slice) -> Grid:
        """Return the blocks within a span of rows."""
        inside = (self.groups >= span.start) & (self.groups < span.stop)
        groups = np.where(inside, self.groups - span.start, -1)
        return replace(self, groups=groups[inside.any(axis=1)])

    def spans(self, most: int) -> list[slice]:
        """Cut the rows between blocks, into spans of at most `most` rows."""
        count = max(1, most // self.groups.shape[1])
        edges = [*self.groups[::count, 0], int(self.groups.max(initial=-1)) + 1]
        return [slice(int(start), int(stop)) for start, stop in pairwise(edges)]


def keep_mask(size: np.ndarray, sparsity: float, pattern: Pattern) -> np.ndarray:
    """Return the weights to keep, bool in the shape of their scores `size` [..., inputs, outputs].

    Blocks lie in one position of the kernel and are ranked by their sums, those at the edge too;
    2:4 keeps the two largest of every four inputs and ignores `sparsity`.
    """
    rows, grid = _rows(size, pattern)
    return mask_rows(rows, sparsity, grid).reshape(size.shape)


def mask_rows(
    size: np.ndarray, sparsity: float, grid: Grid, *, every_output: bool = True
) -> np.ndarray:
    """Return the mask of scores [rows, outputs]."""
    if grid.pattern == "2:4":
        fours = np.where(grid.groups[..., None] < 0, -np.inf, size[grid.groups])
        # argsort of argsort: each weight's rank within its four.
        rank = np.argsort(np.argsort(-fours, axis=1, kind="stable"), axis=1)
        return _ungroup(rank < 2, grid, size.shape)
    kept = keep_blocks(*_sum_blocks(size, grid), sparsity, every_output=every_output)
    return _spread(kept, grid, size.shape)


def spread_blocks(kept: np.ndarray, shape: tuple[int, ...], pattern: Pattern) -> np.ndarray:
    """Return the mask [..., inputs, outputs] of blocks to keep, as block_scores has them."""
    rows, grid = _rows(np.empty(shape, bool), pattern)
    return _spread(kept, grid, rows.shape).reshape(shape)


def largest_of_outputs(scores: np.ndarray) -> np.ndarray:
    """Return True for the largest block of each output; scores [blocks, blocks of outputs]."""
    largest = np.zeros(scores.shape, bool)
    largest[scores.argmax(axis=0), np.arange(scores.shape[1])] = True
    return largest


def block_scores(size: np.ndarray, pattern: Pattern) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of scores [..., inputs, outputs] in blocks, and the blocks' numbers of
    weights; both [blocks along the inputs, blocks along the outputs]."""
    return _sum_blocks(*_rows(size, pattern))


def _rows(values: np.ndarray, pattern: Pattern) -> tuple[np.ndarray, Grid]:
    rows = values.reshape(-1, values.shape[-1])
    return rows, Grid.of(len(rows), values.shape[-2], pattern)


def _sum_blocks(size: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of scores [rows, outputs] in blocks, and their numbers of weights."""
    columns = np.arange(0, size.shape[1], block_shape(grid.pattern)[0])
    inside = grid.groups >= 0
    sums = np.where(inside[..., None], size[grid.groups], 0).sum(axis=1)
    heights = np.diff([*columns, size.shape[1]])
    return np.add.reduceat(sums, columns, axis=1), np.outer(inside.sum(axis=1), heights)


def _spread(kept: np.ndarray, grid: Grid, shape: tuple[int, ...]) -> np.ndarray:
    height, width = block_shape(grid.pattern)
    wide = np.repeat(kept, height, axis=1)[:, None, : shape[1]]
    return _ungroup(np.repeat(wide, width, axis=1), grid, shape)


def _ungroup(grouped: np.ndarray, grid: Grid, shape: tuple[int, ...]) -> np.ndarray:
    """Return [rows, outputs] from [blocks, width, outputs]."""
    rows = np.zeros(shape, bool)
    inside = grid.groups >= 0
    rows[grid.groups[inside]] = grouped[inside]
    return rows


def keep_blocks(
    size: np.ndarray, counts: np.ndarray, sparsity: float, *, every_output: bool = True
) -> np.ndarray:
    """Return True for all but the smallest blocks, which together have a share of the weights; of
    equals the first are dropped. Each column, an output or several, keeps its largest.

    Args:
        size: scores of the blocks [blocks along the inputs, blocks along the outputs].
        counts: their numbers of weights.
        sparsity: share of the weights to drop.
    """
    kept = np.ones(size.size, bool)
    order = np.argsort(size, axis=None, kind="stable")
    if every_output:
        order = order[~largest_of_outputs(size).ravel()[order]]
    gone = np.cumsum(counts.ravel()[order]) <= round(sparsity * counts.sum())
    kept[order[gone]] = False
    return kept.reshape(size.shape)


def resolve_distribution(
    distribution: Literal["auto", Distribution],
    pruned: Iterable[tuple[tuple[int, ...], Pattern]],
) -> Distribution:
    """Return a step's distribution, for the shapes and patterns of the kernels that it prunes; auto
    is lamp where convolutions lose blocks: the same share of each layer would take whole outputs
    from the early ones, and 1-6 points of accuracy."""
    if distribution != "auto":
        return distribution
    blocks = any(pattern in BLOCKS and len(shape) > 2 for shape, pattern in pruned)
    return "lamp" if blocks else "uniform"


def distribute(
    squares: Mapping[str, tuple[np.ndarray, Pattern]], sparsity: float, distribution: Distribution
) -> dict[str, float]:
    """Return each kernel's share of zeros, for a share over all of them.

    Args:
        squares: the squares of each kernel's weights [..., inputs, outputs], and its pattern.
        sparsity: share of zeros over all of them.
        distribution: uniform: the same share of each; erk: smaller kernels lose less; global: the
            smallest weights (or blocks) of all kernels; lamp: those that are the smallest share of
            what their kernel would have left (layer-adaptive magnitudes, Lee et al. 2021, arXiv
            2010.07611). The last two keep a block in each output.
    """
    if distribution == "uniform":
        return dict.fromkeys(squares, sparsity)
    if distribution == "erk":
        densities = erk({name: values.shape for name, (values, _) in squares.items()}, 1 - sparsity)
        return {name: 1 - density for name, density in densities.items()}
    parts = [_removable(*item, lamp=distribution == "lamp") for item in squares.values()]
    scores, counts = (np.concatenate(values) for values in zip(*parts, strict=True))
    owners = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    sizes = np.array([values.size for values, _ in squares.values()])
    order = np.argsort(scores, kind="stable")
    order = order[np.cumsum(counts[order]) <= round(sparsity * sizes.sum())]
    gone = np.bincount(owners[order], counts[order], minlength=len(parts))
    return dict(zip(squares, (gone / sizes).tolist(), strict=True))


def _removable(
    squares: np.ndarray, pattern: Pattern, *, lamp: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of a kernel's blocks, per weight, without the largest of each output; and
    the blocks' numbers of weights."""
    sums, counts = block_scores(squares, pattern)
    scores = sums / math.prod(block_shape(pattern))
    if lamp:
        order = np.argsort(sums, axis=None, kind="stable")
        left = np.cumsum(sums.ravel()[order][::-1])[::-1]
        scores.ravel()[order] /= np.maximum(left, np.finfo(left.dtype).tiny)
    removable = ~largest_of_outputs(sums)
    return scores[removable], counts[removable]


def erk(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """Return densities by Erdos-Renyi-Kernel (Mocanu et al. 2018, arXiv 1707.04780; Evci et al.
    2020, arXiv 1911.11134): in proportion to the sum of a kernel's dimensions divided by their
    product, and at most 1."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    budget = density * sum(sizes.values())
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        free = [name for name in shapes if name not in dense]
        rest = budget - sum(sizes[name] for name in dense)
        if not free or rest <= 0:
            return dict.fromkeys(shapes, density)
        scale = rest / sum(raw[name] * sizes[name] for name in free)
        full = [name for name in free if scale * raw[name] > 1]
        if not full:
            return {name: 1.0 if name in dense else scale * raw[name] for name in shapes}
        dense.update(full)
