"""Inputs with dynamic shapes."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import data
from edgesparse.data import dynamic_shapes
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


def test_samples_are_cut_or_padded():
    dataset = varied()
    assert dynamic_shapes.dynamic_inputs(dataset) == {"x": (None, 2)}
    fixed = dynamic_shapes.with_fixed_shapes(dataset, {"x": [6, 2]})
    assert fixed.input_shape == (6, 2)
    x, y = data.arrays(fixed.train, 40)
    assert x["x"].shape == (40, 6, 2)
    for values, label in zip(x["x"], y["y"], strict=True):
        present = values[(values != 0).any(axis=1)]
        assert 3 <= len(present) <= 6
        assert np.all(present == 1.0 + label)
        assert not values[len(present) :].any()


def test_batched_data_is_an_error():
    x, y = np.zeros((40, 5, 2), np.float32), np.arange(40) % 2
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    dataset = data.from_datasets("batched", batches, batches, batches, ["a", "b"])
    with pytest.raises(UsageError, match=r"x \[\?, 5, 2\] seems to be batched; .*unbatch\(\)"):
        dynamic_shapes.with_fixed_shapes(dataset, {})
    single = data.from_datasets("single", *[batches.unbatch()] * 3, ["a", "b"])
    assert dynamic_shapes.with_fixed_shapes(single, {}).train.count == 40


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, r"x has samples of different sizes \[\?, 2\]; set the shape to train"),
        ({"x": [6, 3]}, r"x is \[None, 2\] in the data, not \[6, 3\]"),
        ({"y": [6, 2]}, "the data has no input 'y'"),
    ],
)
def test_missing_or_invalid_shape_is_an_error(shapes, message):
    with pytest.raises(UsageError, match=message):
        dynamic_shapes.with_fixed_shapes(varied(), shapes)


def test_static_shapes_are_unchanged():
    dataset = data.from_arrays("fixed", np.zeros((60, 4), np.float32), np.arange(60) % 2)
    assert dynamic_shapes.with_fixed_shapes(dataset, {}) is dataset
    assert dynamic_shapes.with_fixed_shapes(dataset, {"x": [4]}) is dataset
