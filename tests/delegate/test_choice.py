"""Which files the delegate is tried with."""

import numpy as np
import pytest

from edgesparse.delegate.choice import channel_multiple, has_enough_zeros, is_tried
from edgesparse.delegate.constants import CPUS


def blocks(shape, share, block, seed=0):
    """int8 weights of which a share is zero, in blocks of inputs."""
    rng = np.random.default_rng(seed)
    groups = rng.random((*shape[:-1], shape[-1] // block)) >= share
    return (rng.integers(1, 127, shape) * np.repeat(groups, block, -1)).astype(np.int8)


def test_the_multiple_of_channels_that_a_cpu_wants():
    wanted = {name: channel_multiple(cpu).number for name, cpu in CPUS.items()}
    wide = dict.fromkeys(("avx512vnni", "amx", "dotprod"), 16)
    assert wanted == wide | dict.fromkeys(("avx2", "avxvnni", "neon"), 8)
    assert channel_multiple(CPUS["dotprod"], every_file=True).number == 4
    assert channel_multiple(None).number == 8


@pytest.mark.parametrize("shape", [(64, 3, 3, 32), (128, 64)])
@pytest.mark.parametrize(("share", "enough"), [(0.7, True), (0.3, False)])
def test_zeros_count_in_blocks(shape, share, enough):
    assert has_enough_zeros([blocks(shape, share, 4)], 0.5) is enough
    # Of blocks of two inputs the kernels skip pairs only, and of scattered zeros hardly any: also
    # on CPUs that multiply pairs.
    assert not has_enough_zeros([blocks(shape, share, 2)], 0.6)
    assert not has_enough_zeros([blocks(shape, share, 1)], 0.5)


def test_all_weights_of_a_file_count():
    sparse, dense = blocks((64, 64), 0.9, 4), blocks((64, 64), 0.0, 4)
    assert has_enough_zeros([sparse, sparse, dense], 0.5)
    assert not has_enough_zeros([sparse, dense, dense], 0.5)


def test_a_last_block_of_fewer_inputs():
    weights = np.zeros((8, 3), np.int8)
    assert has_enough_zeros([weights], 1.0)
    weights[:, 2] = 1
    assert not has_enough_zeros([weights], 0.1)
    assert not has_enough_zeros([], 0.0)


def test_without_a_threshold_every_int8_file_is_tried():
    dense = blocks((8, 8), 0.0, 4)
    assert is_tried({"library": "0"}, [dense])
    assert not is_tried({"library": "0"}, [])
    assert not is_tried({"min_zeros": 0.5}, [dense])
