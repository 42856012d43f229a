"""TFLite's sparse tensor format: the compressed dimension, the order of traversal, the blocks.

The format is that of TACO (Kjolstad et al. 2017, doi 10.1145/3133901) in TFLite's
SparsityParameters: dimensions, some of them cut into blocks, are traversed in an order; each level
is dense or compressed (CSR: segments and indices).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

_INDEX_DTYPES = (np.uint8, np.uint16, np.int32)
"""The schema's dtypes of segments and indices."""

Form = Literal["dense", "densify", "random", "block-1x4", "block-1x16"]
"""densify: stored sparse, made dense when the model is loaded; the others are sparse kernels."""


@dataclass(frozen=True)
class Layout:
    """The layout of a tensor with one compressed level; the others are dense.

    `order` names levels in the order of traversal: 0 to rank-1 are dimensions, rank + b is the
    inside of block b. `block_map` has the dimension that each block cuts, `block_sizes` its width.
    """

    order: tuple[int, ...]
    csr_level: int
    block_map: tuple[int, ...] = ()
    block_sizes: tuple[int, ...] = ()

    def level_sizes(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the width of each level, in the order of traversal."""
        sizes = [*shape, *self.block_sizes]
        for dimension, width in zip(self.block_map, self.block_sizes, strict=True):
            sizes[dimension] //= width
        return tuple(sizes[level] for level in self.order)


@dataclass(frozen=True)
class Level:
    """A level of a stored tensor: dense with a width, or compressed."""

    size: int
    segments: np.ndarray | None = None
    indices: np.ndarray | None = None

    @property
    def bytes(self) -> int:
        if self.segments is None or self.indices is None:
            return 0
        return int(self.segments.nbytes + self.indices.nbytes)


@dataclass(frozen=True)
class Compressed:
    """A tensor in sparse form: `values` is 1-D, `levels` in the order of traversal."""

    shape: tuple[int, ...]
    order: tuple[int, ...]
    block_map: tuple[int, ...]
    levels: tuple[Level, ...]
    values: np.ndarray

    @property
    def bytes(self) -> int:
        """The size of values, segments and indices."""
        return int(self.values.nbytes) + sum(level.bytes for level in self.levels)


def along(rank: int, dimension: int) -> Layout:
    """Return the layout of single elements, compressed along a dimension, traversed last."""
    return Layout((*(d for d in range(rank) if d != dimension), dimension), rank - 1)


def blocks(rank: int, width: int) -> Layout:
    """Return the layout of blocks of `width` along the last dimension; blocks with a non-zero are
    stored whole.

    Runtimes traverse the inside of a block last, and it must be dense.
    """
    return Layout(tuple(range(rank + 1)), rank - 1, (rank - 1,), (width,))


def fits(layout: Layout, shape: Sequence[int]) -> bool:
    """Return whether the layout's blocks divide the shape."""
    pairs = zip(layout.block_map, layout.block_sizes, strict=True)
    return all(shape[d] and shape[d] % width == 0 for d, width in pairs)


class Dense:
    """A dense tensor to be stored. Every element equal to 0 is a zero: -0.0, which folding a batch
    normalization produces, is decoded as 0.0, and kernels do not distinguish them."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @cached_property
    def nonzero(self) -> np.ndarray:
        return self.values != 0

    @cached_property
    def zeros(self) -> int:
        return int(self.nonzero.size - np.count_nonzero(self.nonzero))

    def stored_elements(self, layout: Layout) -> int:
        """Return the number of values in that layout, including zeros inside of blocks."""
        inner = math.prod(layout.level_sizes(self.shape)[layout.csr_level + 1 :])
        return int(np.count_nonzero(self._stored_mask(layout))) * inner

    def stored_bytes(self, layout: Layout) -> int:
        """Return the size of values, segments and indices in that layout."""
        mask = self._stored_mask(layout)
        counts = np.count_nonzero(mask, axis=1)
        total = int(counts.sum())
        inner = math.prod(layout.level_sizes(self.shape)[layout.csr_level + 1 :])
        last = int(np.max(np.nonzero(mask.any(axis=0))[0], initial=0))
        # The narrowest dtype for the highest index: with int8 weights an index has the size of its
        # value, or twice that.
        indices = total * _index_dtype(last)().itemsize
        # Segments count values: with many rows they can need a wider dtype than the indices.
        segments = (len(counts) + 1) * _index_dtype(total)().itemsize
        return total * inner * self.values.itemsize + indices + segments

    def compress(self, layout: Layout) -> Compressed:
        """Store in that layout."""
        sizes = layout.level_sizes(self.shape)
        mask = self._stored_mask(layout)
        counts = np.count_nonzero(mask, axis=1)
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        segments = np.zeros(len(counts) + 1, _index_dtype(total))
        segments[1:] = ends
        columns = np.nonzero(mask)[1]
        indices = columns.astype(_index_dtype(int(columns.max(initial=0))))
        values = _as_levels(self.values, layout)[mask].reshape(-1)
        levels = tuple(
            Level(size, segments, indices) if level == layout.csr_level else Level(size)
            for level, size in enumerate(sizes)
        )
        return Compressed(self.shape, layout.order, layout.block_map, levels, values)

    def _stored_mask(self, layout: Layout) -> np.ndarray:
        """Return the mask of stored elements or blocks: bool [rows, columns of that level]."""
        return _as_levels(self.nonzero, layout).any(axis=2)


def _as_levels(values: np.ndarray, layout: Layout) -> np.ndarray:
    """Reshape to [levels before the compressed one, compressed level, levels after it]."""
    rank = values.ndim
    cut = {
        d: (b, w) for b, (d, w) in enumerate(zip(layout.block_map, layout.block_sizes, strict=True))
    }
    shape: list[int] = []
    axes: dict[int, int] = {}
    for dimension, size in enumerate(values.shape):
        axes[dimension] = len(shape)
        if dimension in cut:
            block, width = cut[dimension]
            shape += [size // width, width]
            axes[rank + block] = len(shape) - 1
        else:
            shape.append(size)
    levels = values.reshape(shape).transpose([axes[level] for level in layout.order])
    at = layout.csr_level
    sizes = levels.shape
    return levels.reshape(math.prod(sizes[:at]), sizes[at], math.prod(sizes[at + 1 :]))


def _index_dtype(highest: int) -> type[np.unsignedinteger] | type[np.signedinteger]:
    return next(dtype for dtype in _INDEX_DTYPES if highest <= np.iinfo(dtype).max)


def _level_limits(stored: Compressed) -> list[int]:
    """Return the limit of positions on each level: the next compressed level's number of segments,
    or the number of values."""
    limit = len(stored.values)
    limits = []
    for data in reversed(stored.levels):
        limits.append(limit)
        if data.segments is not None:
            limit = len(data.segments) - 1
    return limits[::-1]


def decompress(stored: Compressed) -> np.ndarray:
    """Return the dense tensor of any valid sparse form, also of other encoders.

    Raises:
        ValueError: levels and values contradict each other.
    """
    rank = len(stored.shape)
    # Files of other encoders are untrusted.
    if sorted(stored.order) != list(range(rank + len(stored.block_map))):
        raise ValueError(f"traversal order {stored.order} of {rank} dimensions")
    coordinates: dict[int, np.ndarray] = {}
    count = 1
    for level, data, limit in zip(stored.order, stored.levels, _level_limits(stored), strict=True):
        if data.segments is None or data.indices is None:
            # Before allocation: a few bytes can declare gigabytes.
            if count * data.size > limit:
                raise ValueError("dense levels larger than the tensor")
            parents, own_coordinates = np.divmod(np.arange(count * data.size), max(1, data.size))
        else:
            segments = data.segments.astype(np.int64)
            counts = np.diff(segments)
            if len(counts) != count or (counts < 0).any() or int(segments[-1]) != len(data.indices):
                raise ValueError("segments do not match their indices")
            parents, own_coordinates = (
                np.repeat(np.arange(count), counts),
                data.indices.astype(np.int64),
            )
        coordinates = {level: values[parents] for level, values in coordinates.items()}
        coordinates[level] = own_coordinates
        count = len(own_coordinates)
    if count != len(stored.values):
        raise ValueError(f"{len(stored.values)} values for {count} positions")
    sizes = dict(zip(stored.order, (level.size for level in stored.levels), strict=True))
    for block, dimension in enumerate(stored.block_map):
        inner = coordinates[rank + block]
        coordinates[dimension] = coordinates[dimension] * sizes[rank + block] + inner
    dense = np.zeros(stored.shape, stored.values.dtype)
    if count:
        dense[tuple(coordinates[d] for d in range(rank))] = stored.values
    return dense
