"""Samples that differ in size."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import data
from edgesparse.data import lengths
from edgesparse.spec.errors import UsageError


def varied():
    def part(count, seed):
        def samples():
            random = np.random.default_rng(seed)
            for number in range(count):
                size = int(random.integers(3, 12))
                yield np.full((size, 2), 1.0 + number % 2, np.float32), number % 2

        signature = (tf.TensorSpec((None, 2), tf.float32), tf.TensorSpec((), tf.int64))
        return tf.data.Dataset.from_generator(samples, output_signature=signature)

    return data.from_datasets("varied", part(40, 0), part(8, 1), part(8, 2), ["one", "two"])


def test_they_are_cut_or_filled_with_zeros():
    dataset = varied()
    assert lengths.open_inputs(dataset) == {"x": (None, 2)}
    fixed = lengths.closed(dataset, {"x": [6, 2]})
    assert fixed.input_shape == (6, 2)
    x, y = data.arrays(fixed.train, 40)
    assert x["x"].shape == (40, 6, 2)
    for values, label in zip(x["x"], y["y"], strict=True):
        there = values[(values != 0).any(axis=1)]
        assert 3 <= len(there) <= 6
        assert np.all(there == 1.0 + label)
        assert not values[len(there) :].any()


def test_batches_are_refused_with_the_way_out():
    x, y = np.zeros((40, 5, 2), np.float32), np.arange(40) % 2
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    dataset = data.from_datasets("batched", batches, batches, batches, ["a", "b"])
    with pytest.raises(UsageError, match=r"x \[\?, 5, 2\] seems to be batches; .*unbatch\(\)"):
        lengths.closed(dataset, {})
    single = data.from_datasets("single", *[batches.unbatch()] * 3, ["a", "b"])
    assert lengths.closed(single, {}).train.count == 40


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, r"x has samples of different sizes \[\?, 2\]; say at which"),
        ({"x": [6, 3]}, r"x is \[None, 2\] in the data, not \[6, 3\]"),
        ({"y": [6, 2]}, "the data has no input 'y'"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_said(given, said):
    with pytest.raises(UsageError, match=said):
        lengths.closed(varied(), given)


def test_data_of_one_size_stays_as_it_is():
    dataset = data.from_arrays("fixed", np.zeros((60, 4), np.float32), np.arange(60) % 2)
    assert lengths.closed(dataset, {}) is dataset
    assert lengths.closed(dataset, {"x": [4]}) is dataset
