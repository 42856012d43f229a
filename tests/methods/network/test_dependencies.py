"""Channels are followed through any model: what is removed was worth nothing to what is left."""

import random

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.methods.channels import shrink
from edgesparse.methods.network.cost import cost
from edgesparse.methods.network.dependencies import trace

pytestmark = pytest.mark.slow
layers = tf.keras.layers


def groups(model):
    return {group.layers: len(group.atoms) for group in trace(model).groups()}


def classify(inputs, x):
    x = layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(inputs, layers.Dense(3, "softmax", name="classes")(x))


def test_an_addition_ties_and_a_concatenation_does_not():
    inputs = tf.keras.Input((8, 8, 3))
    a, b, c = (layers.Conv2D(8, 3, padding="same", name=name)(inputs) for name in "abc")
    both = layers.Concatenate()([layers.Add()([a, b]), c])
    x = layers.Conv2D(16, 1, name="d")(both)
    x = layers.Add()([x, both])
    found = groups(classify(inputs, x))
    assert found == {("a", "b", "d"): 8, ("c", "d"): 8}


def test_depthwise_normalization_and_flatten_follow_their_input():
    inputs = tf.keras.Input((4, 4, 3))
    x = layers.Conv2D(6, 1, name="a")(inputs)
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, depth_multiplier=2)(x))
    x = layers.Flatten()(x)
    x = layers.Dense(5, "relu", name="b")(x)
    model = tf.keras.Model(inputs, layers.Dense(2, name="c")(x))
    assert groups(model) == {("a",): 6, ("b",): 5}
    found = trace(model)
    kept = np.ones(len(found.fixed), bool)
    (first, _) = found.groups()
    kept[first.atoms[:2]] = False
    smaller = shrink(model, found, kept)
    assert smaller.get_layer("b").kernel.shape == (2 * 2 * 8, 5)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (lambda: layers.Reshape((32, 16)), "Reshape moves channels among other dimensions"),
        (lambda: layers.Permute((1, 3, 2)), "Permute moves channels"),
        (
            lambda: layers.LayerNormalization(axis=1),
            "it normalizes a dimension other than channels",
        ),
        (
            lambda: layers.BatchNormalization(axis=1),
            "it normalizes a dimension other than channels",
        ),
        (lambda: layers.Softmax(), "its softmax mixes channels"),
        (lambda: layers.Lambda(lambda x: x[..., ::-1]), "Lambda can mix channels"),
    ],
)
def test_what_cannot_be_followed_keeps_its_channels_with_a_reason(layer, why):
    inputs = tf.keras.Input((8, 8, 3))
    x = layer()(layers.Conv2D(8, 1, name="before")(inputs))
    x = layers.Dense(4, name="after")(layers.Flatten()(x))
    found = trace(tf.keras.Model(inputs, layers.Dense(2)(x)))
    assert [group.layers for group in found.groups()] == [("after",)]
    assert any(why in reason for reason in found.reasons.values())


def test_a_reshape_that_keeps_channels_last_is_followed():
    inputs = tf.keras.Input((4, 4, 3))
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 1, name="a")(inputs))
    model = tf.keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    check_pruned(model, seed=1)
    assert groups(model) == {("a",): 8}


def test_a_layer_that_is_called_twice_is_pruned_once():
    shared = layers.Conv2D(8, 3, padding="same", name="shared")
    inputs = tf.keras.Input((8, 8, 8))
    x = shared(shared(layers.Conv2D(8, 1, name="first")(inputs)))
    model = classify(inputs, x)
    assert groups(model) == {("first", "shared"): 8}
    check_pruned(model, seed=2)


def test_a_model_inside_the_model_keeps_its_inputs():
    inner_inputs = tf.keras.Input((8, 8, 8))
    x = layers.Conv2D(8, 1, name="inside")(inner_inputs)
    inner = tf.keras.Model(inner_inputs, layers.Conv2D(8, 1, name="last")(x), name="inner")
    inputs = tf.keras.Input((8, 8, 3))
    model = classify(inputs, inner(layers.Conv2D(8, 1, name="outside")(inputs)))
    assert groups(model) == {("inside",): 8, ("last",): 8}
    check_pruned(model, seed=3)


def test_functions_of_tensorflow_that_treat_channels_alike_are_followed():
    inputs = tf.keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 1, name="a")(inputs)
    x = x * tf.nn.relu6(x + 3.0) / 6.0
    model = classify(inputs, x)
    assert groups(model) == {("a",): 8}
    check_pruned(model, seed=4)
    x = layers.Conv2D(8, 1, name="b")(inputs) * tf.range(8, dtype=tf.float32)
    assert groups(classify(inputs, x)) == {}


@pytest.mark.parametrize(
    ("count", "expected"),
    [(2, {("before",): 4, ("grouped",): 8}), (4, {("before", "grouped"): 4})],
)
def test_a_convolution_keeps_its_groups_alike(count, expected):
    """Of two groups of four the same channels go of both; of four groups of two, whole ones."""
    inputs = tf.keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 1, name="before")(inputs)
    x = layers.BatchNormalization()(layers.Conv2D(16, 3, groups=count, name="grouped")(x))
    model = classify(inputs, x)
    assert {tuple(sorted(names)): atoms for names, atoms in groups(model).items()} == expected
    check_pruned(model, seed=6)


def random_network(chance):
    """Some layers of every kind, wired at random."""
    tf.keras.utils.set_random_seed(chance.randrange(1000))
    inputs = tf.keras.Input((8, 8, 3))
    ends = [layers.Conv2D(8, 3, padding="same")(inputs)]

    def squeezed(x):
        width = x.shape[-1]
        y = layers.GlobalAveragePooling2D(keepdims=True)(x)
        y = layers.Conv2D(width, 1, activation="sigmoid")(layers.Dense(4, "relu")(y))
        return layers.Multiply()([x, y])

    def with_another(x):
        others = [e for e in ends if e.shape == x.shape]
        return layers.Add()([x, chance.choice(others)]) if others else x

    def beside_another(x):
        others = [e for e in ends if e.shape[1:3] == x.shape[1:3]]
        return layers.Concatenate()([x, chance.choice(others)]) if others else x

    kinds = [
        lambda x: layers.Conv2D(chance.choice([8, 12]), 3, padding="same", activation="relu")(x),
        lambda x: layers.SeparableConv2D(8, 3, padding="same", depth_multiplier=2)(x),
        lambda x: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x),
        lambda x: layers.Conv2DTranspose(8, 3, padding="same")(x),
        lambda x: layers.Conv2D(x.shape[-1], 3, padding="same", groups=chance.choice([2, 4]))(x),
        lambda x: layers.PReLU(shared_axes=[1, 2], alpha_initializer="uniform")(x),
        lambda x: layers.BatchNormalization()(x),
        lambda x: layers.Dense(8)(x),
        lambda x: layers.LeakyReLU()(x),
        squeezed,
        with_another,
        beside_another,
    ]
    for _ in range(chance.randrange(4, 9)):
        x = chance.choice(ends)
        if x.shape[-1] <= 48:
            ends.append(chance.choice(kinds)(x))
    x = layers.Concatenate()([layers.MaxPooling2D(2)(end) for end in ends[-2:]])
    x = layers.Flatten()(x) if chance.random() < 0.5 else layers.GlobalMaxPooling2D()(x)
    return tf.keras.Model(inputs, layers.Dense(3, "softmax")(layers.Dense(8, "relu")(x)))


def check_pruned(model, seed):
    """Make channels worthless, remove them, and compare."""
    chance = np.random.default_rng(seed)
    for weight in model.weights:
        values = chance.normal(size=weight.shape)
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.name else values)
    found = trace(model)
    kept = np.ones(len(found.fixed), bool)
    for group in found.groups():
        gone = chance.random(len(group.atoms)) < 0.5
        gone[0] = False
        kept[group.atoms[gone]] = False
    for channels in found.layers.values():
        for weight, axes in zip(channels.layer.weights, channels.axes, strict=True):
            values = weight.numpy()
            for axis, name in axes.items():
                if name in ("out", "gates", "heads"):
                    shape = [1] * values.ndim
                    shape[axis] = -1
                    values *= channels.masks(kept)[name].reshape(shape)
            weight.assign(values)
    # A depthwise bias runs along its outputs, which are its inputs many times.
    smaller = shrink(model, found, kept)
    assert smaller.count_params() < model.count_params()
    counted = cost(found, kept)
    assert cost(trace(smaller), np.ones(len(trace(smaller).fixed), bool)) == counted
    x = chance.normal(size=(4, *model.inputs[0].shape[1:])).astype(np.float32)
    assert np.allclose(smaller(x), model(x), atol=1e-4)


def attended(x):
    return layers.Add()([x, layers.MultiHeadAttention(4, 3, name="heads")(x, x)])


def compared(x):
    both = [layers.Dense(8)(x), layers.Dense(8)(x)]
    return layers.Concatenate()([layers.Attention()(both), layers.AdditiveAttention()(both)])


SEQUENCES = {
    "lstm": lambda x: layers.LSTM(8, return_sequences=True)(x),
    "gru": lambda x: layers.GRU(8)(x),
    "simple rnn": lambda x: layers.SimpleRNN(8, return_sequences=True)(x),
    "rnn of a cell": lambda x: layers.RNN(layers.GRUCell(8), return_sequences=True)(x),
    "bidirectional": lambda x: layers.Bidirectional(layers.LSTM(8, return_sequences=True))(x),
    "two ways added": lambda x: layers.Bidirectional(layers.GRU(8), merge_mode="sum")(x),
    "separable": lambda x: layers.SeparableConv1D(8, 3, depth_multiplier=2)(x),
    "depthwise": lambda x: layers.DepthwiseConv1D(3, depth_multiplier=2)(x),
    "transposed": lambda x: layers.Conv1DTranspose(8, 3, 2)(x),
    "time distributed": lambda x: layers.TimeDistributed(layers.Dense(8, "relu"))(x),
    "convolution of steps": lambda x: layers.TimeDistributed(layers.Conv1D(8, 3))(
        layers.Reshape((3, 4, x.shape[-1]))(x)
    ),
    "einsum": lambda x: layers.EinsumDense("abc,cd->abd", (None, 8), bias_axes="d")(x),
    "attention": attended,
    "attention of two": compared,
    "images in time": lambda x: layers.ConvLSTM1D(8, 3)(layers.Reshape((3, 4, x.shape[-1]))(x)),
    "volumes": lambda x: layers.AveragePooling3D((1, 1, 2))(
        layers.Conv3D(8, (2, 2, 1))(layers.Reshape((3, 2, 2, x.shape[-1]))(x))
    ),
    "sums": lambda x: tf.concat([tf.reduce_mean(x, axis=1), tf.reduce_max(x, 1)], axis=-1),
    "repeated": lambda x: layers.RepeatVector(3)(layers.GlobalMaxPooling1D()(x)),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_channels_of_sequences_are_followed(name):
    tf.keras.backend.clear_session()
    inputs = tf.keras.Input((12, 5))
    x = SEQUENCES[name](layers.Conv1D(8, 3, padding="same", name="before")(inputs))
    x = layers.Flatten()(x)
    model = tf.keras.Model(inputs, layers.Dense(3)(x))
    found = groups(model)
    assert any("before" in names for names in found)
    if name == "attention":
        assert found["heads/heads",] == 4
    check_pruned(model, seed=5)


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.full) for seed in range(5, 25))]
)
def test_removing_worthless_channels_changes_no_answer(seed):
    check_pruned(random_network(random.Random(seed)), seed)
