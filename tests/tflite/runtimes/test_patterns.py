"""What is told, and chosen, of a model before it is trained."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.models.mobilenet_v1 import mobilenet_v1
from edgesparse.models.resnet8 import resnet8
from edgesparse.tflite.convert import convert
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from edgesparse.tflite.runtimes.patterns import (
    advice,
    choose,
    exploited_share,
    exploits,
    read_graph,
)

pytestmark = pytest.mark.slow
PI5 = frozenset({"asimdhp", "asimddp"})
X86 = [
    Profile(Machine("tflite-runtime", "2.14.0", "x86_64")),
    Profile(Machine("ai-edge-litert", "2.1.6", "x86_64")),
]
ARM = [
    Profile(Machine("tflite-runtime", "2.14.0", "aarch64", PI5)),
    Profile(Machine("ai-edge-litert", "2.1.6", "aarch64", PI5)),
]


def graph_of(model):
    return read_graph(convert(model, "f32", np.zeros((0, 1), np.float32)))


@pytest.fixture(scope="module")
def mobilenet():
    return graph_of(mobilenet_v1([32, 32, 3], 10, alpha=0.25, downsample=2))


@pytest.fixture(scope="module")
def residual():
    return graph_of(resnet8())


@pytest.fixture(scope="module")
def wide():
    inputs = tf.keras.Input((64,))
    x = tf.keras.layers.Dense(32, "relu", name="blocks")(inputs)
    x = tf.keras.layers.Dense(20, "relu", name="odd")(x)
    return graph_of(tf.keras.Model(inputs, tf.keras.layers.Dense(3, name="last")(x)))


def test_pointwise_convolutions_are_unstructured_where_they_are_skipped(mobilenet):
    chosen = choose(mobilenet, exploits(ARM, "f32", 0.9), 0.9)
    pointwise = {name: choice for name, choice in chosen.items() if name.startswith("conv_pw")}
    assert len(pointwise) == 13
    assert set(pointwise.values()) == {"unstructured"}
    assert not any(name.startswith(("conv_dw", "conv1")) for name in chosen)


def test_else_channels_go(mobilenet, residual):
    for result in (exploits(X86, "f32", 0.9), exploits(ARM, "int8", 0.9)):
        chosen = choose(mobilenet, result, 0.9)
        assert {c for n, c in chosen.items() if n.startswith("conv_pw")} == {"channels"}
    # ResNet's 3x3 convolutions cannot be sparse; its 1x1 shortcuts neither, for that reason.
    chosen = choose(residual, exploits(ARM, "f32", 0.9), 0.9)
    assert {c for n, c in chosen.items() if n.startswith("block")} == {"channels"}


def test_too_few_zeros_are_not_skipped(mobilenet):
    assert "unstructured" not in choose(mobilenet, exploits(ARM, "f32", 0.6), 0.6).values()


@pytest.mark.parametrize(
    ("profiles", "scheme", "expected"),
    [
        (X86, "f32", {"blocks": "block-1x4", "odd": "block-1x4", "last": "block-1x4"}),
        (X86, "int8", {"blocks": "block-1x16", "odd": "block-1x16", "last": "channels"}),
        (ARM, "f32", {"blocks": "block-1x4", "odd": "block-1x4", "last": "block-1x4"}),
        (ARM[:1], "f32", {"blocks": "channels", "odd": "channels", "last": "channels"}),
        (X86[1:], "dynamic", {"blocks": "channels", "odd": "channels", "last": "channels"}),
    ],
)
def test_fully_connected_layers_take_the_fastest_blocks_that_fit(wide, profiles, scheme, expected):
    assert choose(wide, exploits(profiles, scheme, 0.9), 0.9) == expected


def test_advice_says_why_and_how_many(mobilenet, wide):
    result = advice(mobilenet, X86[0], "f32", 0.9, "unstructured", ["classifier"])
    assert result == {"XNNPACK has no sparse kernels on x86 with AVX": 13}
    result = advice(mobilenet, ARM[0], "f32", 0.6, "unstructured", ["classifier"])
    ((reason, count),) = result.items()
    assert reason.startswith("60% zeros over all 1x1 weights")
    assert count == 13
    assert advice(mobilenet, ARM[1], "f32", 0.9, "unstructured", ["classifier"]) == {}
    result = advice(mobilenet, ARM[0], "int8", 0.9, "unstructured", ["classifier"])
    assert result == {"it has no sparse convolution for int8 without delegate edgesparse": 13}
    result = advice(wide, ARM[0], "int8", 0.9, "unstructured")
    assert result["its int8 kernel requires pattern block-1x16 (or auto), not unstructured"] == 2
    assert advice(wide, ARM[0], "int8", 0.9, "block-1x16", ["last"]) == {}


def test_with_the_delegate_int8_takes_the_smallest_blocks_that_pay(mobilenet):
    profile = replace(ARM[1], delegate=True)
    chosen = choose(mobilenet, exploits([profile], "int8", 0.9), 0.9)
    patterns = {c for n, c in chosen.items() if n.startswith("conv_pw")}
    assert patterns & {"block-1x4", "block-2x4"}
    assert "unstructured" not in patterns
    # f32 has its own path.
    chosen = choose(mobilenet, exploits([profile], "f32", 0.9), 0.9)
    assert {c for n, c in chosen.items() if n.startswith("conv_pw")} == {"unstructured"}


@pytest.mark.parametrize(("features", "block"), [(PI5, "block-2x4"), (frozenset(), "block-1x4")])
def test_auto_chooses_other_blocks_for_other_cpus(residual, features, block):
    """A Cortex-A76 multiplies two rows nearly as fast as one, a Cortex-A72 does not."""
    machine = Machine("ai-edge-litert", "2.1.6", "aarch64", features)
    chosen = choose(residual, exploits([Profile(machine, delegate=True)], "int8", 0.7), 0.7)
    convolutions = {pattern for name, pattern in chosen.items() if name != "classifier"}
    assert convolutions == {block}


def test_with_the_delegate_blocks_pay_in_int8_convolutions(mobilenet):
    profile = replace(ARM[1], delegate=True)
    pays = advice(mobilenet, profile, "int8", 0.9, "block-2x4", ["classifier"])
    assert sum(pays.values()) <= 3  # Of one pixel, and next to the input.
    result = advice(mobilenet, profile, "int8", 0.6, "unstructured", ["classifier"])
    assert result["too few of its blocks of 4 inputs are zero for delegate edgesparse"] > 5
    share = exploited_share(mobilenet, profile, "int8", 0.9, "block-2x4", ["classifier"])
    assert share > 0.8
    # Of every four inputs two stay, whatever the sparsity: no block is empty.
    assert exploited_share(mobilenet, profile, "int8", 0.9, "2:4", ["classifier"]) < 0.1
