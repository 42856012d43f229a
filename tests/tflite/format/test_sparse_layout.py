import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgesparse.tflite.format.sparse_layout import (
    Compressed,
    Dense,
    Level,
    along,
    blocks,
    decompress,
    fits,
)

DTYPES = (np.float32, np.float16, np.int8)


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    shape.append(draw(st.sampled_from([1, 3, 16, 48, 300])))
    seed, sparsity = draw(st.integers(0, 2**32)), draw(st.sampled_from([0, 0.3, 0.9, 0.99, 1]))
    random = np.random.default_rng(seed)
    values = random.integers(-127, 128, shape)
    values[random.random(shape) < sparsity] = 0
    return values.astype(draw(st.sampled_from(DTYPES)))


def layouts(values):
    rank = values.ndim
    result = [along(rank, dimension) for dimension in range(rank)]
    result += [blocks(rank, width) for width in (2, 4, 16)]
    return [layout for layout in result if fits(layout, values.shape)]


@settings(max_examples=150, deadline=None)
@given(tensors())
def test_every_layout_gives_back_every_bit(values):
    dense = Dense(values)
    for layout in layouts(values):
        stored = dense.compress(layout)
        back = decompress(stored)
        assert back.dtype == values.dtype
        assert back.tobytes() == values.tobytes()
        assert dense.stored_bytes(layout) == stored.bytes
        assert dense.stored_elements(layout) == len(stored.values)


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(np.float32, (3, 8), elements=st.floats(width=32, allow_nan=True)))
def test_any_float_comes_back(values):
    """Only -0.0 becomes 0.0, which is an equal number."""
    back = decompress(Dense(values).compress(along(2, 1)))
    assert back.tobytes() == np.where(values == 0, np.float32(0), values).tobytes()


@pytest.mark.parametrize(
    ("columns", "dtype"), [(256, np.uint8), (257, np.uint16), (70_000, np.int32)]
)
def test_indices_take_the_smallest_type(columns, dtype):
    values = np.zeros((2, columns), np.int8)
    values[:, -1] = 1
    stored = Dense(values).compress(along(2, 1))
    assert stored.levels[1].indices.dtype == dtype
    assert stored.levels[1].segments.dtype == np.uint8


def test_blocks_with_a_nonzero_are_kept_whole():
    values = np.zeros((2, 8), np.float32)
    values[1, 5] = 7
    stored = Dense(values).compress(blocks(2, 4))
    assert stored.values.tolist() == [0, 7, 0, 0]
    assert [level.size for level in stored.levels] == [2, 2, 4]
    assert stored.levels[1].indices.tolist() == [1]


def test_two_compressed_levels_are_read_too():
    """As others may write them: TACO's doubly compressed form."""
    levels = (
        Level(0, np.array([0, 2], np.int32), np.array([1, 3], np.int32)),
        Level(0, np.array([0, 1, 3], np.int32), np.array([2, 0, 1], np.int32)),
    )
    stored = Compressed((4, 3), (0, 1), (), levels, np.array([5, 6, 7], np.int8))
    assert decompress(stored).tolist() == [[0, 0, 0], [0, 0, 5], [0, 0, 0], [6, 7, 0]]


@pytest.mark.parametrize(
    "change",
    [
        {"values": np.ones(5, np.int8)},
        {"order": (0, 0)},
        {"shape": (1 << 20, 1 << 20)},
        {"levels": (Level(1 << 40), Level(3))},
        {"levels": (Level(4), Level(0, np.array([0, 1, 1, 1, 9]), np.array([0], np.int32)))},
        {"levels": (Level(4), Level(0, np.array([0, 1, 1, 1, 1]), np.array([9], np.int32)))},
    ],
)
def test_contradictions_are_errors(change):
    levels = (Level(4), Level(0, np.array([0, 1, 1, 1, 1]), np.array([2], np.int32)))
    right = {"shape": (4, 3), "order": (0, 1), "block_map": (), "levels": levels}
    right["values"] = np.array([5], np.int8)
    assert math.prod(decompress(Compressed(**right)).shape) == 12
    with pytest.raises((ValueError, IndexError, MemoryError)):
        decompress(Compressed(**{**right, **change}))
