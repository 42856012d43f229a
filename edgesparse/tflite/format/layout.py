"""TFLite's sparse tensor form: which dimension is compressed, in which order, in which blocks.

The form is TACO's (Kjolstad et al. 2017, doi 10.1145/3133901), as TFLite's SparsityParameters have
it: dimensions, some of them cut into blocks, are traversed in an order; each level is dense or
compressed (CSR: segments and indices).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

_INDEX_DTYPES = (np.uint8, np.uint16, np.int32)
"""What the schema has for segments and indices."""

Form = Literal["dense", "densify", "random", "block-1x4", "block-1x16"]
"""densify: stored sparse, made dense when the model is loaded; the others are sparse kernels."""


@dataclass(frozen=True)
class Layout:
    """How a dense tensor is laid out with one compressed level; the others are dense.

    `order` names levels in the order of traversal: 0 to rank-1 are dimensions, rank + b is the
    inside of block b. `block_map` has the dimension that each block cuts, `block_sizes` its width.
    """

    order: tuple[int, ...]
    csr_level: int
    block_map: tuple[int, ...] = ()
    block_sizes: tuple[int, ...] = ()

    def level_sizes(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The width of each level, in the order of traversal."""
        sizes = [*shape, *self.block_sizes]
        for dimension, width in zip(self.block_map, self.block_sizes, strict=True):
            sizes[dimension] //= width
        return tuple(sizes[level] for level in self.order)


@dataclass(frozen=True)
class Level:
    """One level of a stored tensor: dense with a width, or compressed."""

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
        """Of values, segments and indices."""
        return int(self.values.nbytes) + sum(level.bytes for level in self.levels)


def along(rank: int, dimension: int) -> Layout:
    """Element by element, compressed along one dimension, which is traversed last."""
    return Layout((*(d for d in range(rank) if d != dimension), dimension), rank - 1)


def blocks(rank: int, width: int) -> Layout:
    """Blocks of `width` along the last dimension; those with a non-zero are kept whole.

    Runtimes take the inside of a block last of all, and it must be dense.
    """
    return Layout(tuple(range(rank + 1)), rank - 1, (rank - 1,), (width,))


def fits(layout: Layout, shape: Sequence[int]) -> bool:
    """Whether the layout's blocks cut the shape without a rest."""
    pairs = zip(layout.block_map, layout.block_sizes, strict=True)
    return all(shape[d] and shape[d] % width == 0 for d, width in pairs)


class Dense:
    """A dense tensor to be stored. Every element that equals 0 is a zero: -0.0 comes back as 0.0,
    which kernels do not tell apart, and folding a batch normalization makes it of many zeros."""

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
        """How many values that layout keeps, zeros inside of blocks included."""
        inner = math.prod(layout.level_sizes(self.shape)[layout.csr_level + 1 :])
        return int(np.count_nonzero(self._kept(layout))) * inner

    def stored_bytes(self, layout: Layout) -> int:
        """Bytes of values, segments and indices in that layout."""
        kept = self._kept(layout)
        counts = np.count_nonzero(kept, axis=1)
        total = int(counts.sum())
        inner = math.prod(layout.level_sizes(self.shape)[layout.csr_level + 1 :])
        last = int(np.max(np.nonzero(kept.any(axis=0))[0], initial=0))
        # The narrowest type that holds the highest index: with int8 weights an index takes as many
        # bytes as its value, or twice as many.
        indices = total * _index_dtype(last)().itemsize
        # Segments count values: with many rows they can need a wider type than the indices.
        segments = (len(counts) + 1) * _index_dtype(total)().itemsize
        return total * inner * self.values.itemsize + indices + segments

    def compress(self, layout: Layout) -> Compressed:
        """Store in that layout."""
        sizes = layout.level_sizes(self.shape)
        kept = self._kept(layout)
        counts = np.count_nonzero(kept, axis=1)
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        segments = np.zeros(len(counts) + 1, _index_dtype(total))
        segments[1:] = ends
        columns = np.nonzero(kept)[1]
        indices = columns.astype(_index_dtype(int(columns.max(initial=0))))
        values = _arranged(self.values, layout)[kept].reshape(-1)
        levels = tuple(
            Level(size, segments, indices) if place == layout.csr_level else Level(size)
            for place, size in enumerate(sizes)
        )
        return Compressed(self.shape, layout.order, layout.block_map, levels, values)

    def _kept(self, layout: Layout) -> np.ndarray:
        """Which elements or blocks are stored: bool [rows, columns of the compressed level]."""
        return _arranged(self.nonzero, layout).any(axis=2)


def _arranged(values: np.ndarray, layout: Layout) -> np.ndarray:
    """As [levels before the compressed one, compressed level, levels after it]."""
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


def _most(stored: Compressed) -> list[int]:
    """How many places there can be on each level: as many as the next compressed level has
    segments for, or in the end as there are values."""
    most = len(stored.values)
    found = []
    for data in reversed(stored.levels):
        found.append(most)
        if data.segments is not None:
            most = len(data.segments) - 1
    return found[::-1]


def decompress(stored: Compressed) -> np.ndarray:
    """The dense tensor, whatever levels are compressed: also of files that others made.

    Raises:
        ValueError: levels and values contradict each other.
    """
    rank = len(stored.shape)
    # Others' files are read, too: nothing about them may be taken for granted.
    if sorted(stored.order) != list(range(rank + len(stored.block_map))):
        raise ValueError(f"traversal order {stored.order} of {rank} dimensions")
    coordinates: dict[int, np.ndarray] = {}
    count = 1
    for level, data, most in zip(stored.order, stored.levels, _most(stored), strict=True):
        if data.segments is None or data.indices is None:
            # Before it is allocated: a few bytes can claim gigabytes.
            if count * data.size > most:
                raise ValueError("dense levels larger than the tensor")
            parents, own = np.divmod(np.arange(count * data.size), max(1, data.size))
        else:
            segments = data.segments.astype(np.int64)
            counts = np.diff(segments)
            if len(counts) != count or (counts < 0).any() or int(segments[-1]) != len(data.indices):
                raise ValueError("segments that do not fit their indices")
            parents, own = np.repeat(np.arange(count), counts), data.indices.astype(np.int64)
        coordinates = {place: values[parents] for place, values in coordinates.items()}
        coordinates[level] = own
        count = len(own)
    if count != len(stored.values):
        raise ValueError(f"{len(stored.values)} values for {count} places")
    sizes = dict(zip(stored.order, (level.size for level in stored.levels), strict=True))
    for block, dimension in enumerate(stored.block_map):
        inner = coordinates[rank + block]
        coordinates[dimension] = coordinates[dimension] * sizes[rank + block] + inner
    dense = np.zeros(stored.shape, stored.values.dtype)
    if count:
        dense[tuple(coordinates[d] for d in range(rank))] = stored.values
    return dense
