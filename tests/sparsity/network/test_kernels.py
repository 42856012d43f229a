"""No weight is left dense without a word."""

import pytest
import tensorflow as tf

from edgesparse.data import Tensor
from edgesparse.sparsity.network.functional import functional
from edgesparse.sparsity.network.kernels import kernels, prunable
from edgesparse.spec.sparsify import matches
from tests.sparsity.networks import BUILDERS, shape_of


def built(name):
    return functional(BUILDERS[name](), {"x": Tensor(shape_of(name), "float32")}, name)


def check_each_weight_is_a_kernel_or_has_a_reason(model):
    """For every network where it is made flat: tests/sparsity/network/test_functional.py."""
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
