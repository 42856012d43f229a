"""Predicted speed-ups of digits' network against measured ones; run by `make bench`."""

import json
import statistics
import subprocess
import sys

import numpy as np
import pytest

from edgesparse.commands.prediction.delegate_speedup import gain_of
from edgesparse.spec.pipeline import Variant
from edgesparse.spec.reading.load import load_pipeline
from edgesparse.spec.step import block_shape
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from edgesparse.tflite.runtimes.patterns import read_graph
from tests.conftest import ROOT
from tests.delegate.test_speed import RACE
from tests.tools.int8_model import Zeros

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

VARIANTS = {
    "unstructured, 90 %": (0.9, "unstructured"),
    "1x4, 80 %": (0.8, "block-1x4"),
    "2x4, 80 %": (0.8, "block-2x4"),
    "4x4, 80 %": (0.8, "block-4x4"),
    "1x4, 90 %": (0.9, "block-1x4"),
    "2x4, 90 %": (0.9, "block-2x4"),
}
WITHIN = 0.2
ROUNDS = 40


def features():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next(line for line in file if line.startswith("flags")).split()


def digits_model():
    from edgesparse import models

    source = load_pipeline(ROOT / "pipelines" / "digits.yaml").spec.model
    return models.build(source, ROOT)


def with_zeros(model, zeros):
    """Copy a model with zeros in blocks in all its 1x1 convolutions."""
    import tensorflow as tf

    copy = tf.keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    rng = np.random.default_rng(0)
    for layer in copy.layers:
        if getattr(layer, "kernel_size", None) == (1, 1) and hasattr(layer, "kernel"):
            kernel = layer.kernel.numpy()
            mask = zeros.weights(rng, kernel.shape[::-1]) != 0
            layer.kernel.assign(kernel * mask.transpose(3, 2, 1, 0).reshape(kernel.shape))
    return copy


def test_zeros_pay_as_much_as_predicted(tmp_path):
    from edgesparse.tflite.convert import convert

    model = digits_model()
    x = np.random.default_rng(0).random((64, 32, 32, 3), np.float32)
    graph = read_graph(convert(model, "f32", np.zeros((0, 1), np.float32)))
    machine = Machine("ai-edge-litert", "2.1.6", "x86_64", frozenset(features()))
    profile = Profile(machine, delegate=True)
    paths, predicted = {}, {}
    for name, (share, pattern) in {"dense": (0.0, "unstructured"), **VARIANTS}.items():
        path = tmp_path / f"{len(paths)}.tflite"
        sparse = model if not share else with_zeros(model, Zeros(share, block_shape(pattern)))
        path.write_bytes(convert(sparse, "int8", x))
        paths[name] = str(path)
        step = {"method": "magnitude", "sparsity": share, "pattern": "unstructured"}
        step["exclude"] = ["classifier"]
        variant = Variant.model_validate({"sparsify": step, "quantize": "int8"})
        predicted[name] = gain_of(variant, graph, profile, pattern).ratio
    command = [sys.executable, "-c", RACE, json.dumps(paths), str(ROUNDS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    times = json.loads(done.stdout)
    differences = {}
    for name in VARIANTS:
        ratios = [a / b for a, b in zip(times["dense"], times[name], strict=True)]
        measured = statistics.median(ratios)
        differences[name] = predicted[name] / measured - 1
        print(
            f"\n{name}: {statistics.median(times[name]):.0f} us, {measured:.2f}x dense int8, "
            f"predicted {predicted[name]:.2f}x ({differences[name]:+.0%}, within {WITHIN:.0%})"
        )
    assert max(map(abs, differences.values())) <= WITHIN
