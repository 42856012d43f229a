"""Models really get smaller, within their budget, and learn again."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import models
from edgesparse.methods.channels import channel_layers, channels, importance
from edgesparse.methods.network.cost import cost
from edgesparse.methods.network.dependencies import trace
from edgesparse.methods.training import fitting as training
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import ModelSource, Train
from edgesparse.spec.sparsify import Channels
from tests.methods.conftest import network, quiet, random_data

pytestmark = pytest.mark.slow
layers = tf.keras.layers
ZOO = {
    "mlp": {"input_shape": [8, 8, 1], "classes": 10, "widths": [64, 64]},
    "mobilenet_v1": {"input_shape": [32, 32, 3], "classes": 10, "alpha": 0.5},
    "mobilenet_v2": {"input_shape": [32, 32, 3], "classes": 10, "alpha": 0.35},
    "ds_cnn": {},
    "resnet8": {},
    "autoencoder": {},
}


# Layers of ours in them tie all channels together.
KEEPING = {
    "moe_mlp": {"input_shape": [8, 8, 1], "classes": 10, "experts": 4},
    "transformer": {"classes": 3, "length": 16, "features": 4, "width": 16, "window": 8},
}


def whole(model):
    found = trace(model)
    return cost(found, np.ones(len(found.fixed), bool))


def prune(model, dataset=None, measure=None, only=None, channel_multiple=8, **settings):
    spec = Channels(method="channels", **{"epochs": 0, **settings})
    dataset = dataset or random_data(model)
    train = Train(epochs=spec.epochs)
    return channels(model, dataset, train, spec, quiet, measure, only, channel_multiple)


def widths(model):
    return {layer.name: layer.shape[-1] for layer in model.layers}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.full] if name == "mobilenet_v2" else [])
        for name in ZOO
    ],
)
def test_every_model_meets_its_budget_in_widths_that_are_fast(tmp_path, name):
    model = models.build(ModelSource(name=name, args=ZOO[name]), tmp_path)
    before = whole(model)
    assert before.parameters == model.count_params()
    for budget in ("macs", "parameters"):
        done = prune(model, **{budget: 0.5})
        after = whole(done.model)
        assert 0.3 < getattr(after, budget) / getattr(before, budget) <= 0.5
        assert after.parameters == done.model.count_params()
        for layer in done.layers:
            old = model.get_layer(layer.name).kernel
            width = done.model.get_layer(layer.name).kernel.shape[-1]
            least = 8 if old.shape[-1] >= 32 else 4 if old.shape[-1] >= 16 else 2
            assert width % least == 0 or width == old.shape[-1]
        assert done.model.output_shape == model.output_shape
        assert f"{getattr(after, budget) / getattr(before, budget):.0%} of the" in done.notes[0]


def test_every_model_in_models_is_tried():
    from edgesparse.spec.code.references import builtin_names

    assert {*ZOO, *KEEPING} == set(builtin_names("models"))


@pytest.mark.parametrize("name", KEEPING)
def test_layers_of_ours_keep_their_channels_with_a_reason(tmp_path, name):
    model = models.build(ModelSource(name=name, args=KEEPING[name]), tmp_path)
    names, reason = channel_layers(model)
    if name == "moe_mlp":  # What goes through its experts comes back to where it began.
        assert reason is not None
        assert "experts" in reason
    else:  # Within a block's feed-forward network they can go.
        assert reason is None
        assert {"feed_1"} in [set(group.layers) for group in trace(model).groups()]
    assert names


def test_what_is_left_learns_again(trained_network, dataset):
    model = trained_network
    assert training.scores(model, dataset)["accuracy"] > 0.95
    done = prune(model, dataset, parameters=0.4, epochs=4, round_to=4)
    assert done.model.count_params() <= 0.4 * model.count_params()
    assert training.scores(done.model, dataset)["accuracy"] > 0.95
    assert done.history["loss"]
    pruned = {layer.name: layer for layer in done.layers}
    assert pruned["wide"].pattern == "channels"
    assert pruned["wide"].note.endswith("of 32 channels removed")
    assert pruned["classifier"].note == "0 of 4 channels removed"


def test_the_least_important_channels_go():
    model = network()
    kernel, bias = model.get_layer("wide").get_weights()
    kernel[:, 8:] *= 100.0
    model.get_layer("wide").set_weights([kernel, bias])
    done = prune(model, ratio=0.25, scope="layer", exclude=["stem", "point"])
    left = done.model.get_layer("wide").kernel.numpy()
    assert left.shape[-1] == 24
    assert np.array_equal(left, kernel[:, 8:])


def test_layers_lose_what_is_said_and_no_more():
    done = prune(network(), ratio=0.5, scope="layer", round_to=4, layers={"wi*": {"ratio": 0.75}})
    assert widths_of(done) == {"stem": 4, "point": 8, "wide": 8, "classifier": 4}
    done = prune(network(), ratio=0.99, round_to=1, max_pruning_ratio=0.75, exclude=["stem"])
    assert widths_of(done) == {"stem": 8, "point": 4, "wide": 8, "classifier": 4}
    done = prune(network(), ratio=0.5, scope="layer", only=["wide"])
    assert widths_of(done) == {"stem": 8, "point": 16, "wide": 16, "classifier": 4}


@pytest.mark.parametrize(("multiple", "left"), [(4, 20), (8, 24), (16, 24)])
def test_the_target_chooses_the_multiple(multiple, left):
    """32 channels are too few for multiples of 16."""
    done = prune(network(), ratio=0.375, scope="layer", only=["wide"], channel_multiple=multiple)
    assert widths_of(done)["wide"] == left
    assert f"widths in multiples of {multiple}" in done.notes[0]


def widths_of(done):
    names = ("stem", "point", "wide", "classifier")
    return {name: int(done.model.get_layer(name).kernel.shape[-1]) for name in names}


def test_global_compares_layers_fairly():
    """A layer whose weights are all large is no more important for that."""
    model = network()
    for weight in model.get_layer("wide").weights:
        weight.assign(weight * 1000.0)
    left = widths_of(prune(model, ratio=0.5, round_to=1))
    assert left["wide"] < 32
    assert left["point"] < 16


def test_importance_by_norms_and_by_batch_normalization():
    inputs = tf.keras.Input((4, 4, 3))
    x = layers.Conv2D(4, 1, use_bias=False, name="a")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Conv2D(4, 1, name="b")(x)
    model = tf.keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    kernel = np.zeros((1, 1, 3, 4), np.float32)
    kernel[..., 0, :] = [3, 5, 1, 1]
    kernel[..., 1, :] = [4, 0, 1, 2]
    model.get_layer("a").set_weights([kernel])
    found = trace(model)
    atoms = found.layers["a"].outputs
    l1, l2 = (importance(found, kind)[atoms] for kind in ("l1", "l2"))
    assert l1 * np.mean([7, 5, 2, 3]) == pytest.approx([7, 5, 2, 3])
    assert l2 / l2[0] == pytest.approx([1, 1, 2**0.5 / 5, 5**0.5 / 5])
    # A converter folds the normalization into the kernel.
    model.get_layer("bn").gamma.assign([1.0, -3.0, 2.0, 2.0])
    model.get_layer("bn").moving_variance.assign([1.0, 1.0, 4.0, 1.0])
    folded = importance(found, "l1")[atoms]
    assert folded / folded[0] == pytest.approx([1, 15 / 7, 2 / 7, 6 / 7], rel=1e-3)
    scales = importance(found, "batch-norm")
    assert scales[atoms] == pytest.approx([0.5, 1.5, 1.0, 1.0])
    assert scales[found.layers["b"].outputs].mean() == pytest.approx(1.0)
    with pytest.raises(UsageError, match="requires BatchNormalization"):
        prune(network(), ratio=0.5, importance="batch-norm")


def test_a_latency_is_met_as_it_is_measured():
    """The measure is a stand-in for a device: a fixed part, and a part that goes with the MACs."""
    asked = []

    def measure(some):
        asked.append(len(some))
        return [1.0 + whole(model).macs / 1000 for model in some]

    model = network()
    dense = measure([model])[0]
    for budget in (0.8, 0.5):
        done = prune(model, latency=budget, round_to=1, measure=measure)
        assert 0.6 * budget < measure([done.model])[0] / dense <= budget
    with pytest.raises(EdgesparseError, match=r"cannot reach latency: 0.01; the minimum is 0\.\d"):
        prune(model, latency=0.01, measure=measure)
    with pytest.raises(EdgesparseError, match="requires a device"):
        prune(model, latency=0.5)


def test_mistakes_are_told_with_what_would_help():
    with pytest.raises(UsageError, match=r"'wied' matches no layer with channels; did you mean"):
        prune(network(), ratio=0.5, exclude=["wied"])
    with pytest.raises(UsageError, match=r"no layer can lose channels"):
        prune(network(), ratio=0.5, exclude=["*"])
    with pytest.raises(EdgesparseError, match=r"cannot reach macs: 0.05; the minimum is 0\.\d\d"):
        prune(network(), macs=0.05)
    inputs = tf.keras.Input((4, 4, 3))
    x = layers.Permute((1, 3, 2))(layers.Conv2D(8, 1)(inputs))
    model = tf.keras.Model(inputs, layers.Flatten()(x))
    with pytest.raises(UsageError, match=r"can lose channels \(permute\w*: Permute moves channels"):
        prune(model, ratio=0.5)


def test_a_users_layers_settings_survive():
    inputs = tf.keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, 2, "same", kernel_regularizer="l2", name="a")(inputs)
    x = layers.Dropout(0.3, name="drop")(layers.LeakyReLU(0.1, name="leaky")(x))
    x = layers.SeparableConv2D(16, 3, activation="relu", name="b")(x)
    model = tf.keras.Model(inputs, layers.Dense(4)(layers.GlobalMaxPooling2D()(x)), name="mine")
    done = prune(model, ratio=0.5, scope="layer")
    assert done.model.name == "mine"
    assert done.model.get_layer("a").kernel_regularizer is not None
    assert done.model.get_layer("a").strides == (2, 2)
    assert done.model.get_layer("drop").rate == 0.3
    assert done.model.get_layer("b").pointwise_kernel.shape == (1, 1, 8, 8)
