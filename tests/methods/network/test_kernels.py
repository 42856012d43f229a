"""No weight is left dense without a word."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.data import Tensor, from_arrays
from edgesparse.methods.magnitude import magnitude
from edgesparse.methods.network.functional import functional
from edgesparse.methods.network.kernels import NO_KERNEL, kernels, prunable
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Magnitude, matches
from tests.methods.networks import BUILDERS, shape_of

L = tf.keras.layers


def built(name):
    return functional(BUILDERS[name](), {"x": Tensor(shape_of(name), "float32")}, name)


def check_each_weight_is_a_kernel_or_has_a_reason(model):
    """For every network where it is made flat: tests/methods/network/test_functional.py."""
    known = {id(kernel.variable) for kernel in kernels(model).values()}
    matrices = [
        w for w in model.weights
        if len(w.shape) >= 2 and w.trainable and "bias" not in w.name.split("/")[-1]
    ]  # fmt: skip
    assert {id(weight) for weight in matrices} == known
    assert all(kernel.reason for n, kernel in kernels(model).items() if n not in prunable(model))
    assert prunable(model)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gru", {"gru/kernel", "gru/recurrent_kernel", "dense"}),
        (
            "bidirectional",
            {
                f"bidirectional/{way}_lstm/{kernel}"
                for way in ("forward", "backward")
                for kernel in ("kernel", "recurrent_kernel")
            },
        ),
        ("attention", {"multi_head_attention/query", "multi_head_attention/attention_output"}),
        ("separable conv2d", {"separable_conv2d/pointwise_kernel"}),
        ("embedding", {"embedding", "dense"}),
        ("own layer", {"own", "dense"}),
        ("time distributed", {"time_distributed", "dense_1"}),
    ],
)  # fmt: skip
def test_names_are_the_layers_and_say_which_where_there_are_several(name, expected):
    tf.keras.backend.clear_session()
    found = set(kernels(built(name)))
    assert found >= expected


def test_what_is_left_dense_says_why():
    tf.keras.backend.clear_session()
    reasons = {name: kernel.reason for name, kernel in kernels(built("depthwise")).items()}
    assert reasons["depthwise_conv2d"].startswith("depthwise")
    assert reasons["conv2d"] == "sees only 3 channels: few weights, much accuracy"
    assert reasons["conv2d_1"] == ""


def test_a_glob_is_for_the_layer_or_for_one_of_its_kernels():
    tf.keras.backend.clear_session()
    found = kernels(built("gru"))
    assert [n for n, k in found.items() if matches("gru", k.names)] == [
        "gru/kernel",
        "gru/recurrent_kernel",
    ]
    assert [n for n, k in found.items() if matches("*/recurrent*", k.names)] == [
        "gru/recurrent_kernel"
    ]


class Block(L.Layer):
    """As users write residual blocks: factors and shifts of several shapes beside kernels."""

    def build(self, shape):
        width = shape[-1]
        self.dense = L.Dense(width)
        self.gamma = self.add_weight(name="gamma", shape=(1, 1, 1, width), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(1, width))
        self.mask = self.add_weight(name="mask", shape=(width, width), initializer="ones")
        self.kernel = self.add_weight(name="kernel", shape=(width, width))
        self.column = self.add_weight(name="column", shape=(width, 1))
        self.spread = self.add_weight(name="spread", shape=(1, width))

    def call(self, x):
        y = self.dense(x) * tf.nn.softplus(self.gamma) + self.beta
        # A factor of a kernel is a part of it, and one column makes one output.
        y = tf.matmul(y, self.kernel * self.mask)
        return x + y + tf.matmul(y, self.column) * self.spread


def test_what_multiplies_element_by_element_is_no_kernel():
    tf.keras.backend.clear_session()
    inputs = tf.keras.Input((4, 4, 8))
    x = Block(name="block")(inputs)
    model = tf.keras.Model(inputs, L.Dense(4, "softmax")(L.GlobalAveragePooling2D()(x)))
    reasons = {name: kernel.reason for name, kernel in kernels(model).items()}
    factors = {name for name, reason in reasons.items() if reason == NO_KERNEL}
    assert factors == {"block/gamma", "block/beta"}
    points = from_arrays("points", np.zeros((40, 4, 4, 8), np.float32), np.arange(40) % 4)
    half = Magnitude(method="magnitude", sparsity=0.5)
    done = magnitude(model, points, Train(epochs=0), half, lambda *_: None)
    assert (done.model.get_layer("block").gamma.numpy() == 1).all()
    assert (done.model.get_layer("block").kernel.numpy() == 0).mean() == 0.5


class Factor(L.Layer):
    """Whose call a user has made a graph of already."""

    def build(self, shape):
        self.factor = self.add_weight(name="factor", shape=(1, shape[-1]))
        self.w = self.add_weight(name="w", shape=(shape[-1], shape[-1]))

    @tf.function
    def call(self, x):
        return tf.matmul(x, self.w) * self.factor


def test_a_single_row_of_a_layer_that_cannot_be_traced_is_a_factor():
    tf.keras.backend.clear_session()
    inputs = tf.keras.Input((8,))
    model = tf.keras.Model(inputs, L.Dense(4)(Factor(name="own")(inputs)))
    reasons = {name: kernel.reason for name, kernel in kernels(model).items()}
    assert reasons == {"own/factor": NO_KERNEL, "own/w": "", "dense": ""}
