"""Penalties that make zeros: of weights, blocks, inputs and channels."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.data import from_arrays
from edgesparse.layers import SparseDense
from edgesparse.methods.l1 import l1
from edgesparse.methods.magnitude import magnitude
from edgesparse.methods.network.dependencies import trace
from edgesparse.methods.network.groups import Atoms, Blocks, Inputs
from edgesparse.methods.network.kernels import Kernel, kernels
from edgesparse.methods.training import fitting
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import L1, Magnitude
from edgesparse.spec.step import block_shape
from edgesparse.tflite.convert import convert
from edgesparse.tflite.format.flatbuffer import constants, open_model
from tests.methods.conftest import network, quiet
from tests.methods.digits import TUNE, accuracy, load, trained, zeros

SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def digits():
    return load()


@pytest.fixture
def model_of(weights_of, digits):
    """A trained network by its seed."""
    return lambda seed=1: trained(weights_of, digits, seed)


def penalized(model, digits, seed=1, epochs=TUNE.epochs, **settings):
    spec = L1(method="l1", epochs=epochs, **settings)
    train = TUNE.model_copy(update={"seed": seed, "epochs": epochs})
    return l1(model, digits, train, spec, quiet)


def check_reached(done):
    assert zeros(done.model) == pytest.approx(0.85, abs=0.01)
    assert done.coverage.achieved == pytest.approx(0.85, abs=0.01)


@pytest.mark.slow
def test_it_reaches_what_is_asked(model_of, digits):
    check_reached(penalized(model_of(), digits, epochs=3, sparsity=0.85))


@pytest.mark.slow
@pytest.mark.full
def test_it_is_as_accurate_as_magnitude(model_of, digits):
    ours, theirs = [], []
    for seed in SEEDS:
        done = penalized(model_of(seed), digits, seed, sparsity=0.85)
        check_reached(done)
        ours.append(accuracy(done.model, digits))
        spec = Magnitude(method="magnitude", sparsity=0.85, epochs=TUNE.epochs)
        train = TUNE.model_copy(update={"seed": seed})
        other = magnitude(model_of(seed), digits, train, spec, quiet)
        theirs.append(accuracy(other.model, digits))
    assert np.mean(ours) >= np.mean(theirs) - 0.01, (ours, theirs)


@pytest.mark.slow
def test_blocks_are_zero_as_a_whole_and_arrive_in_the_file(model_of, digits):
    done = penalized(model_of(), digits, sparsity=0.8, group="block-1x4")
    kernel = kernels(done.model)["dense_1"].variable.numpy()
    blocks = kernel.reshape(16, 4, -1)
    some = (blocks != 0).any(axis=1)
    assert np.mean(some) == pytest.approx(0.2, abs=0.02)
    assert {layer.pattern for layer in done.layers} == {"block-1x4"}
    content = convert(done.model, "f32", np.zeros((1, 8, 8, 1), np.float32))
    matrices = [c.values for c in constants(open_model(content, "m")) if c.is_weight]
    assert sum(int(np.sum(m == 0)) for m in matrices) >= 0.79 * sum(m.size for m in matrices)
    assert accuracy(done.model, digits) > 0.9


@pytest.mark.slow
def test_channels_that_reach_zero_are_removed(model_of, digits):
    model = model_of()
    before = model.count_params()
    done = penalized(model_of(), digits, sparsity=0.5, group="channel")
    assert done.model.count_params() < 0.5 * before
    assert "of the multiply-accumulates" in done.notes[0]
    assert zeros(done.model) < 0.05
    assert accuracy(done.model, digits) >= accuracy(model, digits) - 0.02
    sizes = [
        len(convert(m, "f32", np.zeros((1, 8, 8, 1), np.float32))) for m in (model, done.model)
    ]
    assert sizes[1] < 0.5 * sizes[0]


@pytest.mark.slow
def test_inputs_leave_together(model_of, digits):
    done = penalized(model_of(), digits, epochs=5, sparsity=0.4, group="input")
    kernel = kernels(done.model)["dense_1"].variable.numpy()
    silent = (kernel == 0).all(axis=1)
    assert silent.sum() == pytest.approx(0.4 * 64, abs=1)
    assert "of 64 inputs were disconnected" in done.notes[0]
    # What does not reach it changes nothing.
    (x,) = (np.random.default_rng(0).random((4, 8, 8, 1), dtype=np.float32),)
    other = x.reshape(4, 64).copy()
    other[:, silent] = 7
    np.testing.assert_allclose(
        done.model(other.reshape(x.shape)).numpy(), done.model(x).numpy(), atol=1e-6
    )
    assert accuracy(done.model, digits) > 0.9


@pytest.mark.slow
@pytest.mark.full
def test_a_penalty_makes_the_zeros_that_it_makes(model_of, digits):
    some = penalized(model_of(), digits, penalty=10.0)
    more = penalized(model_of(), digits, penalty=40.0)
    assert 0.02 < zeros(some.model) < zeros(more.model)
    assert "penalty 10: " in some.notes[-1]


def test_nothing_to_shrink_is_an_error(dataset):
    spec = L1(method="l1", sparsity=0.5, exclude=["*"], epochs=1)
    with pytest.raises(UsageError, match="no layer can be made sparse"):
        l1(network(), dataset, TUNE, spec, quiet)
    with pytest.raises(UsageError, match="'wode' matches no layer with a kernel; did you mean"):
        l1(network(), dataset, TUNE, spec.model_copy(update={"exclude": ["wode"]}), quiet)


@pytest.mark.slow
def test_less_than_half_is_an_error(dataset):
    spec = L1(method="l1", sparsity=0.9, exclude=["wide"], epochs=1)
    with pytest.raises(EdgesparseError, match=r"wide \(.*excluded in the pipeline"):
        l1(network(), dataset, TUNE.model_copy(update={"epochs": 1}), spec, quiet)


@pytest.mark.parametrize("pattern", ["unstructured", "block-1x4", "block-2x4", "input"])
def test_a_step_is_the_proximal_operator(pattern):
    """argmin of |v - w|^2 / 2 + amount * norm; the largest of each output stays."""
    random = np.random.default_rng(0)
    values = random.normal(size=(8, 3)).astype(np.float32)
    variable = tf.Variable(values)
    kernel = Kernel("k", "k", None, variable, "")
    groups = Inputs(kernel) if pattern == "input" else Blocks(kernel, pattern)
    unit = np.sqrt(np.mean(values**2))
    before = groups.sizes()
    assert len(before) == groups.count
    groups.shrink(0.5, np.inf)
    after = groups.sizes()
    columns = 1 if pattern == "input" else -(-3 // block_shape(pattern)[0])
    expected, before = np.maximum(0, before - 0.5), before.reshape(-1, columns)
    largest = before == before.max(axis=0)
    expected = np.where(largest, before, expected.reshape(before.shape))
    np.testing.assert_allclose(after, expected.ravel(), atol=1e-5)
    # What is left points where it pointed.
    left = variable.numpy()
    assert np.all(np.sign(left) * np.sign(values) >= 0)
    if pattern == "unstructured":
        shrunk = np.sign(values) * np.maximum(0, np.abs(values) - 0.5 * unit)
        np.testing.assert_allclose(left, np.where(largest, values, shrunk), atol=1e-5)


def test_only_the_smallest_shrink_where_a_share_is_asked():
    variable = tf.Variable(np.array([[0.1, 1.0], [0.5, 0.5], [3.0, 2.0]], np.float32))
    groups = Blocks(Kernel("k", "k", None, variable, ""), "unstructured")
    groups.shrink(0.05, float(np.sort(groups.sizes())[1]))
    left = variable.numpy()
    assert left[0, 0] < 0.1
    assert left[1, 0] < 0.5
    assert left[0, 1] == 1.0
    assert left[2].tolist() == [3.0, 2.0]


def test_channels_shrink_with_what_depends_on_them():
    layers = tf.keras.layers
    inputs = tf.keras.Input((6, 6, 3))
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(8, 3, name="conv")(inputs))
    x = layers.Flatten()(layers.ReLU()(x))
    x = layers.Dense(12, "relu", name="wide", bias_initializer="ones")(x)
    model = tf.keras.Model(inputs, layers.Dense(2, name="head")(x))
    found = trace(model)
    atoms = Atoms(found, found.groups())
    assert atoms.count == 8 + 12
    kept = np.ones(20, bool)
    kept[:3] = kept[8:10] = False
    atoms.keep(kept)
    atoms.hold()
    gone = int((model.get_layer("bn").gamma.numpy() == 0).sum())
    assert gone == 3
    assert int((model.get_layer("wide").bias.numpy() == 0).sum()) == 2
    assert np.all(model.get_layer("head").kernel.numpy() != 0)


@pytest.mark.slow
@pytest.mark.full
def test_a_table_shrinks_with_its_words():
    random = np.random.default_rng(0)
    ids = np.stack([random.choice(60, 6, replace=False) for _ in range(300)]).astype(np.int32)
    counts = np.ones((300, 6), np.float32)
    y = (ids < 6).any(axis=1).astype(int)  # Six words tell, fifty-four do not.
    words = from_arrays("words", {"ids": ids, "counts": counts}, y)
    tf.keras.utils.set_random_seed(1)
    inputs = [tf.keras.Input((6,), dtype="int32", name="ids"), tf.keras.Input((6,), name="counts")]
    x = SparseDense(8, 60, "relu", name="table")(inputs)
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(2, "softmax")(x))
    train = Train(epochs=30, batch_size=16, learning_rate=1e-2)
    fitting.fit(model, words, train, quiet)
    done = l1(model, words, train, L1(method="l1", group="input", sparsity=0.8, epochs=30), quiet)
    table = done.model.get_layer("table")
    assert table.kernel.shape[0] == 13  # Twelve words, and what all others share.
    kept = np.flatnonzero(table.places.numpy() < 12)
    assert set(range(6)) <= set(kept)
    assert not done.keeps_layers
    assert accuracy(done.model, words) > 0.9
