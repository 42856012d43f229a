"""Networks of every layer family through every step, and every scheme after one of the steps at
least: each answers right on each runtime, or is refused with the reason that is known of it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import data
from edgesparse.data import Tensor
from edgesparse.sparsity.channels import channels
from edgesparse.sparsity.magnitude import magnitude
from edgesparse.sparsity.network.functional import functional
from edgesparse.sparsity.quantize_aware import float_twin, prepare
from edgesparse.sparsity.training.fitting import fit
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Channels, Magnitude
from edgesparse.tflite.convert import convert
from tests.sparsity.conftest import quiet
from tests.sparsity.networks import BUILDERS, TOKENS, shape_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TRAIN = Train(epochs=12, batch_size=16, learning_rate=1e-2)
TUNE = Train(epochs=1, batch_size=16, learning_rate=3e-3)
SCHEMES = ("f32", "f16", "dynamic", "int8", "aware")
FILES = {
    "magnitude": ("f32", "int8"),
    "channels": ("f16", "int8"),
    "both": ("f32", "dynamic", "aware"),
}
"""What a network is written as after each step; all schemes where there is one step only."""
TOLERANCE = {"f32": 1e-3, "f16": 1e-2, "dynamic": 0.15, "int8": 0.2, "aware": 0.2}
RUNTIMES = ("tflite_runtime.interpreter", "ai_edge_litert.interpreter")
# Why no layer of a network can lose channels; all others lose some.
RIGID = {
    "grouped conv2d": "its convolution has groups",
    "own layer": "Own may mix channels",
    "shared": "its softmax mixes channels",
    "conv2d, locally connected": "LocallyConnected2D may mix channels",
    "functions": "tf.split has several outputs",
}
# What TFLite has no operator for; said before training, too.
FOREIGN = {"conv2d, conv3d": "TFLite has no operator for AvgPool3D"}
# The share of samples that must be within the tolerance, as a pipeline has it.
AGREEMENT = {"f32": 1.0, "f16": 1.0, "dynamic": 0.9, "int8": 0.9, "aware": 0.9}


def dataset_of(name):
    """Four patterns, and noise: learned in seconds."""
    random, shape, y = np.random.default_rng(0), shape_of(name), np.arange(160) % 4
    if shape == TOKENS:
        x = random.integers(0, 12, (160, *shape)) + 12 * y[:, None]
    else:
        patterns = random.random((4, *shape))
        x = (0.4 * random.random((160, *shape)) + 0.6 * patterns[y]).astype(np.float32)
    return data.from_arrays("patterns", x, y)


def built(name, weights=None):
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(3)
    dtype = "int32" if shape_of(name) == TOKENS else "float32"
    model = functional(BUILDERS[name](), {"x": Tensor(shape_of(name), dtype)}, name)
    if weights is not None:
        model.set_weights(weights)
    return model


def changed(name, step, weights, dataset):
    """The network after a step, fine-tuned."""
    model = built(name, weights)
    if step in ("channels", "both"):
        spec = Channels(method="channels", ratio=0.5, epochs=1)
        done = channels(model, dataset, TUNE, spec, quiet)
        assert "of the multiply-accumulates" in done.notes[0]
        assert done.model.count_params() < model.count_params()
        model = done.model
    if step in ("magnitude", "both"):
        spec = Magnitude(method="magnitude", sparsity=0.8, epochs=1)
        done = magnitude(model, dataset, TUNE, spec, quiet)
        assert abs(done.coverage.reached - 0.8) <= 0.05, done.coverage
        model = done.model
    return model


def written(folder, model, scheme, dataset):
    """A file, and what it should answer."""
    x = data.arrays(dataset.validation, 12)[0]["x"]
    if scheme == "aware":
        prepared = prepare(model)
        fit(prepared.model, dataset, TUNE.model_copy(update={"learning_rate": 1e-4}), quiet)
        model = (float_twin(prepared, model) if prepared.left else None) or prepared.model
    expected = model(x, training=False).numpy()
    samples = data.representative(dataset, 40)["x"]
    chosen = "int8" if scheme == "aware" else scheme
    content = convert(model, chosen, samples, one_scale=True)
    (folder / f"{scheme}.tflite").write_bytes(content)
    np.savez(folder / f"{scheme}.npz", x=x, y=expected)


def errors_in(folder):
    """Of each file on each runtime."""
    script = Path(__file__).with_name("run_files.py")
    found = []
    for module in RUNTIMES:
        if sys.version_info >= (3, 12) and module.startswith("tflite"):
            continue  # No wheels for this Python.
        done = subprocess.run(
            [sys.executable, script, module, folder], capture_output=True, text=True, check=True
        )
        found += [(module, json.loads(line)) for line in done.stdout.splitlines()]
    return found


@pytest.fixture(scope="module")
def trained():
    """Each network is trained once for its three steps; only one is kept."""
    known = {}

    def weights(name, dataset):
        if name not in known:
            known.clear()
            model = built(name)
            fit(model, dataset, TRAIN, quiet)
            known[name] = model.get_weights()
        return known[name]

    return weights


@pytest.mark.parametrize("step", ["magnitude", "channels", "both"])
@pytest.mark.parametrize("name", BUILDERS)
def test_it_answers_right_or_is_refused_with_a_reason(name, step, trained, tmp_path):
    dataset = dataset_of(name)
    weights = trained(name, dataset)
    if name in RIGID and step != "magnitude":
        with pytest.raises(EdgesparseError, match=re.escape(RIGID[name])):
            changed(name, step, weights, dataset)
        return
    model = changed(name, step, weights, dataset)
    if name in FOREIGN:
        with pytest.raises(EdgesparseError, match=FOREIGN[name]):
            written(tmp_path, model, "f32", dataset)
        return
    for scheme in SCHEMES if name in RIGID else FILES[step]:
        written(tmp_path, model, scheme, dataset)
    for module, said in errors_in(tmp_path):
        assert "failed" not in said, (module, said)
        scheme = said["file"]
        within = np.mean(np.array(said["errors"]) <= TOLERANCE[scheme])
        assert within >= AGREEMENT[scheme], (module, said)
