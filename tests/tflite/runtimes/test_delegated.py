"""Which nodes the delegate takes, as predicted, against what the library itself reports."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from edgesparse.delegate.constants import CPUS
from edgesparse.tflite.runtimes.delegated import choose_delegate, claim, is_faster, read_network
from tests.conftest import ROOT
from tests.tools.delegate_answers import library_here
from tests.tools.int8_model import Int8Model, Zeros
from tests.tools.random_nodes import random_case
from tests.tools.sparse_networks import NETWORKS

SAMPLE, MANY = 200, 2_000
_REPORT = """
import json, os, sys
from ai_edge_litert.interpreter import Interpreter, load_delegate
from tests.tools.int8_model import Zeros
from tests.tools.random_nodes import random_case
from tests.tools.sparse_networks import NETWORKS
library, jobs = sys.argv[1], json.loads(sys.argv[2])
for number, job in enumerate(jobs):
    kind, value, options = job
    content = random_case(value).content if kind == "case" else NETWORKS[kind](Zeros(*value))
    os.write(2, f"job\\t{number}\\n".encode())
    delegate = load_delegate(library, {**options, "report": "1"})
    Interpreter(model_content=content, num_threads=1, experimental_delegates=[delegate])
"""


def reported(jobs):
    """By job its nodes: (number, taken, reason, zeros, rows of a block)."""
    command = [sys.executable, "-c", _REPORT, str(library_here()), json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    nodes = []
    for line in done.stderr.splitlines():
        fields = line.split("\t")
        if fields[0] == "job":
            nodes.append([])
        elif fields[0] == "edgesparse-node":
            nodes[-1].append((int(fields[1]), fields[3] == "taken", fields[4], float(fields[5])))
    return nodes


# The portable kernels have as many pixels in a vector as NEON's.
PORTABLE = CPUS["dotprod"]


def predicted(content, min_zeros=None):
    network = claim(read_network(content), PORTABLE, min_zeros=min_zeros)
    return [(n.operator, n.taken, n.why, round(n.zeros, 4)) for n in network.nodes]


def compare(seeds, min_zeros):
    options = {"isa": "portable"} | ({} if min_zeros is None else {"min_zeros": str(min_zeros)})
    reasons = Counter()
    jobs = [("case", seed, options) for seed in seeds]
    for seed, nodes in zip(seeds, reported(jobs), strict=True):
        mine = predicted(random_case(seed).content, min_zeros)
        for (number, taken, why, zeros), theirs in zip(mine, nodes, strict=True):
            assert (number, taken, why) == theirs[:3], f"seed {seed} {random_case(seed)}"
            assert not taken or not zeros or abs(zeros - theirs[3]) < 2e-4, f"seed {seed}"
            reasons[why or "taken"] += 1
    return reasons


@pytest.mark.slow
@pytest.mark.parametrize("min_zeros", [None, 0.0, 0.9])
def test_random_nodes_are_taken_as_predicted(min_zeros):
    reasons = compare(range(SAMPLE), min_zeros)
    print(reasons)
    assert reasons["taken"] > SAMPLE / 10
    assert len(reasons) >= 5


@pytest.mark.full
def test_many_random_nodes_are_taken_as_predicted():
    # In parts, since a program's arguments are limited.
    for start in range(SAMPLE, MANY, SAMPLE):
        compare(range(start, start + SAMPLE), None)


@pytest.mark.slow
def test_networks_are_taken_as_predicted():
    options = {"isa": "portable", "min_zeros": "0.5"}
    kinds = [
        (name, (share, block)) for name in NETWORKS for share in (0.0, 0.8) for block in ((2, 4),)
    ]
    nodes = reported([(name, zeros, options) for name, zeros in kinds])
    for (name, (share, block)), theirs in zip(kinds, nodes, strict=True):
        mine = predicted(NETWORKS[name](Zeros(share, block)), 0.5)
        assert [n[:3] for n in mine] == [n[:3] for n in theirs], name
        assert any(taken for _, taken, _, _ in mine) == (share > 0)


OFFER = {"min_zeros": 0.5}


def choice_of(content, **offer):
    return choose_delegate(content, {**OFFER, **offer}, "ai-edge-litert")


def test_a_file_is_tried_where_blocks_are_zero():
    tried = choice_of(NETWORKS["resnet8"](Zeros(0.8, (2, 4))), cpu="avx512vnni")
    assert (tried.is_tried, tried.is_timed, tried.why) == (True, False, "")
    assert tried.ratio > 1.5
    assert not choice_of(NETWORKS["resnet8"](Zeros(0.0)), cpu="avx512vnni").is_tried
    # Most weights are zero, and hardly a block of four.
    single = NETWORKS["mobilenet_v1"](Zeros(0.6, (1, 1)), size=32)
    assert not choice_of(single, cpu="avx512vnni").is_tried


def test_a_large_dense_classifier_does_not_keep_a_file_from_the_delegate():
    content = NETWORKS["mobilenet_v1"](Zeros(0.6, (2, 4)), size=96)
    assert not choice_of(content).is_tried
    assert choice_of(content, cpu="dotprod").is_tried


def perceptron(width, zeros):
    m = Int8Model(np.random.default_rng(0))
    x = m.input((1, width), 2 / 255, 0)
    for _ in range(2):
        x = m.dense(x, zeros.weights(m.rng, (width, width)))
    return m.finish(x)


def test_zeros_for_which_the_runtime_is_faster_are_not_tried():
    """A fully connected layer has one pixel, which fills no register."""
    small = perceptron(256, Zeros(0.9, (1, 16)))
    found = choice_of(small, cpu="avx512vnni")
    assert not found.is_tried
    assert found.why == f"it is expected to be {found.ratio:.2f}x as fast with delegate edgesparse"
    assert choice_of(small).is_timed, "of a CPU without a prediction nothing is known"
    assert choose_delegate(small, {"library": "0"}, "ai-edge-litert").is_tried, (
        "as the device file says"
    )


def test_what_predictions_cannot_tell_is_timed():
    small = perceptron(256, Zeros(0.9, (1, 16)))
    ratio = choice_of(small, cpu="avx512vnni").ratio
    for near, timed in (((0.9, 1.1), True), ((0.5, 0.9), False)):
        found = choice_of(small, cpu="avx512vnni", timed_between=[ratio * n for n in near])
        assert (found.is_tried, found.is_timed) == (True, timed)


@pytest.mark.parametrize(
    ("plain", "delegated", "predicted", "faster"),
    [
        ([2.0, 2.1, 2.0], [1.0, 1.9, 1.5], 0.8, True),
        ([1.0, 1.1, 1.0], [1.2, 1.3, 1.1], 1.2, False),
        ([1.0, 1.1, 1.0], [1.2, 0.9, 1.1], 1.2, True),
        ([1.0, 1.1, 1.0], [1.2, 0.9, 1.1], 0.8, False),
    ],
)
def test_rounds_that_differ_leave_it_to_the_prediction(plain, delegated, predicted, faster):
    rounds = {"xnnpack": plain, "edgesparse": delegated}
    assert is_faster(rounds, predicted) is faster
    assert is_faster({}, predicted) is (predicted >= 1)


def test_without_a_prediction_the_delegate_is_taken():
    assert is_faster({}, None)
