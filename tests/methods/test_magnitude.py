import numpy as np
import pytest
import tensorflow as tf

from edgesparse.methods.coverage import as_sparsified
from edgesparse.methods.magnitude import choose_targets, magnitude, schedule_steps
from edgesparse.methods.network.keep_mask import block_scores
from edgesparse.methods.network.kernels import choose
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Magnitude, Schedule
from tests.methods.conftest import network, quiet


def spec(**changes):
    return Magnitude(method="magnitude", **{"sparsity": 0.75, "epochs": 2, **changes})


def prune(dataset, **changes):
    chosen = spec(**changes)
    train = Train(epochs=chosen.epochs, batch_size=32, learning_rate=1e-3)
    return magnitude(network(), dataset, train, chosen, quiet)


def kernel(result, name):
    return result.model.get_layer(name).kernel.numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "epochs"),
    [
        ("constant", 0),
        ("polynomial", 1),
        pytest.param("polynomial", 0, marks=pytest.mark.full),
        pytest.param("constant", 1, marks=pytest.mark.full),
        pytest.param("constant", 3, marks=pytest.mark.full),
        pytest.param("polynomial", 3, marks=pytest.mark.full),
    ],
)
def test_unstructured_reaches_its_sparsity(dataset, schedule, epochs):
    result = prune(dataset, schedule={"name": schedule}, epochs=epochs)
    assert {x.name for x in result.layers} == {"point", "wide", "classifier"}
    for layer in result.layers:
        assert np.mean(kernel(result, layer.name) == 0) == layer.achieved
        assert layer.achieved == pytest.approx(0.75, abs=0.02)
    assert not np.any(kernel(result, "stem") == 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "epochs", "distribution"),
    [
        ("block-1x4", 0, "uniform"),
        ("block-2x4", 1, "auto"),
        ("block-4x4", 0, "global"),
        ("block-1x2", 0, "erk"),
    ],
)
def test_blocks_lie_over_convolutions_and_matrices(dataset, pattern, epochs, distribution):
    result = prune(dataset, pattern=pattern, epochs=epochs, distribution=distribution)
    assert {layer.name: layer.pattern for layer in result.layers}["point"] == pattern
    size = zeros = 0
    for layer in result.layers:
        weights = kernel(result, layer.name)
        kept, counts = block_scores(weights != 0, layer.pattern)
        assert set(np.unique(kept / counts)) <= {0.0, 1.0}
        assert kept.any(axis=0).all()
        size, zeros = size + weights.size, zeros + int(np.sum(weights == 0))
    assert zeros / size == pytest.approx(0.75, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, pytest.param(0, marks=pytest.mark.full)])
def test_two_of_four(dataset, epochs):
    result = prune(dataset, pattern="2:4", sparsity=0.5, epochs=epochs)
    for name in ("wide", "point"):
        rows = kernel(result, name).reshape(-1, kernel(result, name).shape[-1]).T
        assert np.all((rows.reshape(rows.shape[0], -1, 4) == 0).sum(axis=-1) >= 2)


@pytest.mark.slow
def test_best_weights_are_from_after_the_schedule(dataset):
    result = prune(dataset, epochs=4, schedule={"name": "polynomial", "end": 0.9})
    assert all(layer.achieved >= 0.74 for layer in result.layers)
    assert len(result.history["val_accuracy"]) == 4


def test_overrides_and_exclusions():
    targets = choose_targets(
        network(),
        spec(
            exclude=["class*"], layers={"p*": {"sparsity": 0.5}, "wide": {"pattern": "block-1x4"}}
        ),
    )
    assert [(t.name, t.sparsity, t.pattern) for t in targets] == [
        ("point", 0.5, "unstructured"),
        ("wide", 0.75, "block-1x4"),
    ]


@pytest.mark.parametrize("where", ["exclude", "layers"])
def test_a_pattern_that_matches_nothing_is_an_error(where):
    change = {"exclude": ["wied"]} if where == "exclude" else {"layers": {"wied": {}}}
    with pytest.raises(UsageError, match=r"'wied' matches no layer .* did you mean 'wide'"):
        choose_targets(network(), spec(**change))


def test_blocks_leave_large_depthwise_kernels_dense_unless_they_are_named():
    layers = tf.keras.layers
    depthwise, point = (
        layers.DepthwiseConv2D(3, name="depthwise"),
        layers.Conv2D(16, 1, name="point"),
    )
    model = tf.keras.Sequential([tf.keras.Input((8, 8, 8)), depthwise, point])
    names = [
        {target.name for target in choose_targets(model, spec(**change))}
        for change in (
            {},
            {"pattern": "block-2x4"},
            {"pattern": "block-2x4", "layers": {"dep*": {}}},
        )
    ]
    assert names == [{"depthwise", "point"}, {"point"}, {"depthwise", "point"}]
    _, left = choose(model, [], "block-1x4")
    assert left == {"depthwise": (72, "depthwise: no runtime skips blocks of its zeros")}


def test_kernels_that_blocks_do_not_fit_keep_their_share():
    layers = tf.keras.layers
    table, convolution = layers.Embedding(50, 16, name="table"), layers.Conv1D(32, 3, name="conv")
    model = tf.keras.Sequential([tf.keras.Input((16,), dtype="int32"), table, convolution])
    targets = choose_targets(model, spec(pattern="block-2x4"))
    assert {target.name: target.joint for target in targets} == {"table": False, "conv": True}


def test_nothing_left_to_prune():
    with pytest.raises(UsageError, match="no layer can be pruned"):
        choose_targets(network(), spec(exclude=["*"]))


@pytest.mark.parametrize("total", [1, 2, 7, 50, 360, 1001])
@pytest.mark.parametrize("end", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("frequency", [0.01, 0.05, 1.0])
def test_the_end_lies_on_the_grid_and_inside_the_training(total, end, frequency):
    begin, last, every = schedule_steps(Schedule(begin=0.0, end=end, frequency=frequency), total)
    assert begin < last <= max(begin + 1, total)
    assert (last - begin) % every == 0


def test_own_method_returns_a_model_or_is_told_so():
    model = network()
    wide = model.get_layer("wide").kernel
    wide.assign(tf.where(tf.abs(wide) < 0.05, 0.0, wide))
    result = as_sparsified(model, "mine.py:prune")
    assert [x.name for x in result.layers] == ["wide"]
    with pytest.raises(UsageError, match=r"mine.py:prune returned list"):
        as_sparsified([], "mine.py:prune")


@pytest.mark.slow
def test_a_layer_of_a_single_block_is_pruned_all_the_same(dataset):
    """As a layer is that lost most of its inputs; the toolkit fails there."""
    tf.keras.utils.set_random_seed(3)
    layers = tf.keras.layers
    narrow = layers.Dense(16, activation="relu", name="narrow")
    last = layers.Dense(4, activation="softmax", name="last")
    model = tf.keras.Sequential([tf.keras.Input((4, 8, 1)), layers.Flatten(), narrow, last])
    chosen = spec(pattern="block-1x16", sparsity=0.5, epochs=1)
    result = magnitude(model, dataset, Train(epochs=1), chosen, quiet)
    found = {layer.name: layer for layer in result.layers}
    assert found["narrow"].pattern == "block-1x16"
    assert found["last"].note == "block-1x16 requires more than 16 inputs; pruned unstructured"
    assert found["last"].achieved >= 0.49
