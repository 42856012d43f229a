"""What zeros gain in int8 with edgesparse's delegate, before anything is trained."""

import re

import numpy as np
import pytest

from edgesparse.commands.prediction.delegate_speedup import predict_gains, zeros_by_layer
from edgesparse.models.mobilenet_v1 import mobilenet_v1
from edgesparse.spec.pipeline import Variant
from edgesparse.tflite.convert import convert
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from edgesparse.tflite.runtimes.patterns import read_graph

pytestmark = pytest.mark.slow
A76 = Machine("ai-edge-litert", "2.1.6", "aarch64", frozenset({"asimddp", "asimdhp"}))
CHANNELS = {"method": "channels", "macs": 0.4}


@pytest.fixture(scope="module")
def graph():
    model = mobilenet_v1([32, 32, 3], 10, alpha=0.5, downsample=2)
    return read_graph(convert(model, "f32", np.zeros((0, 1), np.float32)))


def magnitude(sparsity, pattern="unstructured"):
    return {"method": "magnitude", "sparsity": sparsity, "pattern": pattern}


def predicted(graph, delegate=True, **variants):
    chosen = {name: Variant.model_validate({"quantize": "int8", "sparsify": steps})
              for name, steps in variants.items()}  # fmt: skip
    profiles = {"ai-edge-litert": Profile(A76, delegate=delegate)}
    return {p.variants[0]: p for p in predict_gains(chosen, graph, profiles, "pi: ")}


def test_each_int8_variant_has_a_time_and_zeros_a_text(graph):
    lines = predicted(graph, dense=[], channels=[CHANNELS], block=[magnitude(0.8, "block-1x4")])
    assert lines["dense"].message == lines["channels"].message == ""
    assert lines["dense"].delegate == lines["channels"].delegate == "xnnpack"
    assert lines["block"].delegate == "edgesparse"
    # Fewer channels: 40 % of the products, and more of the rest.
    assert 1.8 < lines["dense"].time / lines["channels"].time < 2.5
    ratio = lines["dense"].time / lines["block"].time
    assert 2.0 < ratio < 3.5
    text = lines["block"].message
    assert text.startswith(f"pi: block is expected to be {ratio:.1f}x as fast by its zeros on ")
    assert "with delegate edgesparse: in " in text
    assert predicted(graph, delegate=False, block=[magnitude(0.8)]) == {}


def test_steps_add_up(graph):
    lines = predicted(
        graph,
        dense=[],
        channels=[CHANNELS],
        both=[CHANNELS, magnitude(0.8, "block-1x4")],
        block=[magnitude(0.8, "block-1x4")],
    )
    assert lines["both"].time < min(lines["block"].time, lines["channels"].time)


def test_single_zeros_are_told_which_pattern_would_pay(graph):
    lines = predicted(graph, dense=[], single=[magnitude(0.7)], few=[magnitude(0.05)])
    assert re.search(r"[12]\.\dx with pattern block-[12]x4", lines["single"].message)
    assert lines["few"].message == ""


def test_zeros_are_distributed_as_the_step_says(graph):
    step = Variant.model_validate({"sparsify": magnitude(0.8, "block-2x4")}).sparsify[0]
    shares = {name: share for name, (share, _) in zeros_by_layer(step, graph).items()}
    # LAMP: early layers stay dense, wide ones lose the most.
    assert shares["conv_pw_1"] < 0.5 < 0.8 < shares["conv_pw_12"]
    uniform = step.model_copy(update={"distribution": "uniform"})
    assert {share for share, _ in zeros_by_layer(uniform, graph).values()} == {0.8}
    assert {block for _, block in zeros_by_layer(uniform, graph).values()} == {(2, 4)}


def test_layers_with_a_sparsity_of_their_own_keep_it(graph):
    layers = {"conv_pw_12": {"sparsity": 0.25}, "conv_pw_11": {"pattern": "2:4"}}
    step = {**magnitude(0.8, "block-2x4"), "layers": layers}
    zeros = zeros_by_layer(Variant.model_validate({"sparsify": step}).sparsify[0], graph)
    assert zeros["conv_pw_12"] == (0.25, (2, 4))
    assert zeros["conv_pw_11"] == (0.5, (1, 1))
    assert zeros["conv_pw_1"][0] < 0.5 < zeros["conv_pw_10"][0]
