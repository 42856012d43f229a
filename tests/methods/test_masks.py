from typing import get_args

import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from edgesparse.methods.l1 import l1
from edgesparse.methods.magnitude import magnitude
from edgesparse.methods.masks import magnitude_mask
from edgesparse.methods.network.kernels import Kernel, kernels
from edgesparse.methods.one_shot import one_shot
from edgesparse.methods.rigl import rigl
from edgesparse.methods.threshold import threshold
from edgesparse.spec.pipeline import Numbers, Train
from edgesparse.spec.sparsify import Sparsify
from edgesparse.spec.step import BLOCKS, block_shape
from edgesparse.tflite.convert import convert
from tests.methods.conftest import network, quiet
from tests.tflite.test_convert import answers

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 32, 8))


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.9])
def test_unstructured_keeps_the_largest(sparsity):
    mask = magnitude_mask(KERNEL, sparsity, "unstructured")
    assert mask.mean() == pytest.approx(1 - sparsity, abs=1e-3)
    if sparsity > 0:
        assert np.abs(KERNEL[mask]).min() >= np.abs(KERNEL[~mask]).max()


@pytest.mark.parametrize("pattern", BLOCKS)
@pytest.mark.parametrize("shape", [(32, 8), (3, 3, 16, 8), (3, 3, 7, 5), (5, 1), (1, 1, 2, 3)])
@pytest.mark.parametrize("sparsity", [0.5, 0.99])
def test_blocks_of_a_position_stay_or_go_and_every_output_keeps_one(pattern, shape, sparsity):
    size = np.random.default_rng(0).random(shape)
    mask = magnitude_mask(size, sparsity, pattern)
    assert mask.reshape(-1, shape[-1]).any(axis=0).all()
    height, width = block_shape(pattern)
    positions = mask.reshape(-1, *shape[-2:])
    largest_gone, smallest_kept = 0.0, np.inf
    for at, position in enumerate(positions):
        for row in range(0, shape[-2], width):
            for column in range(0, shape[-1], height):
                span = slice(row, row + width), slice(column, column + height)
                assert len(np.unique(position[span])) == 1
                total = np.square(size.reshape(positions.shape)[at][span]).sum()
                if not position[span].any():
                    largest_gone = max(largest_gone, total)
                elif positions[:, :, column].sum() > width:  # Not an output's only block.
                    smallest_kept = min(smallest_kept, total)
    if sparsity == 0.5 and size.size > 100:
        assert largest_gone <= smallest_kept
        assert mask.mean() == pytest.approx(0.5, abs=2 * height * width / size.size)


def test_two_of_every_four():
    mask = magnitude_mask(KERNEL, 0.9, "2:4")
    fours = mask.reshape(3, 3, 8, 4, 8)
    assert (fours.sum(axis=3) == 2).all()
    kept = np.abs(np.where(mask, KERNEL, np.inf)).reshape(3, 3, 8, 4, 8).min(axis=3)
    gone = np.abs(np.where(mask, 0, KERNEL)).reshape(3, 3, 8, 4, 8).max(axis=3)
    assert (kept >= gone).all()


def test_equal_weights_still_give_the_share():
    assert magnitude_mask(np.ones((4, 4)), 0.5, "unstructured").sum() == 8


def dead_outputs(model):
    return [
        name
        for name, kernel in kernels(model).items()
        for alive in [kernel.by_output(kernel.variable.numpy() != 0)]
        if not alive.reshape(-1, alive.shape[-1]).any(axis=0).all()
    ]


METHODS = [
    (magnitude, {"sparsity": 0.99, "distribution": "global"}),
    (magnitude, {"sparsity": 0.95, "pattern": "block-4x4"}),
    (l1, {"sparsity": 0.95}),
    (l1, {"penalty": 1000.0, "group": "block-2x4"}),
    (rigl, {"sparsity": 0.95}),
    (rigl, {"sparsity": 0.9, "pattern": "block-1x4"}),
    (one_shot, {"sparsity": 0.95, "pattern": "block-1x4", "distribution": "lamp"}),
    (threshold, {"relative": 1.2}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "settings"), METHODS)
def test_every_output_keeps_a_weight(dataset, method, settings):
    """Outputs without weights get int8 scales that have nothing to do with the others'."""
    name = method.__name__.replace("_", "-")
    partial = {} if method is threshold else {"allow_partial": True}
    spec = TypeAdapter(Sparsify).validate_python({"method": name, **settings, **partial})
    train = Train(epochs=spec.epochs and 1, batch_size=64, learning_rate=1e-3)
    model = network()
    for kernel in kernels(model).values():  # A column that any of them would take away first.
        values = kernel.variable.numpy()
        values[..., :4] *= 1e-3
        kernel.variable.assign(values)
    done = method(model, dataset, train, spec, quiet)
    assert dead_outputs(done.model) == []
    assert any(layer.achieved > 0.5 for layer in done.layers)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", get_args(Numbers))
def test_outputs_without_weights_are_harmless_in_a_file(scheme):
    """As a model of others can have them: its answers are as those without quantization."""
    tf.keras.utils.set_random_seed(1)
    model = network()
    for layer in ("point", "wide"):
        kernel = model.get_layer(layer).kernel
        kernel.assign(kernel * np.where(np.arange(kernel.shape[-1]) < kernel.shape[-1] // 2, 0, 1))
        bias = model.get_layer(layer).bias
        bias.assign(np.random.default_rng(0).normal(0, 1, bias.shape))
    samples = np.random.default_rng(0).random((64, 4, 8, 1), np.float32)
    content = convert(model, scheme, samples)
    np.testing.assert_allclose(answers(content, samples), model(samples).numpy(), atol=0.05)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (tf.keras.layers.Conv2DTranspose(6, 2), (4, 4, 3)),
        (tf.keras.layers.DepthwiseConv2D(2, depth_multiplier=2), (4, 4, 3)),
        (tf.keras.layers.EinsumDense("abc,cde->abde", (None, 2, 3), None), (4, 5)),
    ],
)
def test_outputs_of_kernels_whose_last_dimension_is_not_all_of_them(layer, shape):
    layer.build((None, *shape))
    (weight,) = [w for w in layer.weights if len(w.shape) > 1]
    kernel = Kernel("k", "k", layer, weight, "")
    values = weight.numpy()
    ordered = kernel.by_output(values)
    assert ordered.shape[-1] == 6
    np.testing.assert_array_equal(kernel.as_kernel(ordered), values)
