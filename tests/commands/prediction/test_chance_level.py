"""A dense model that has learned nothing ends a run before variants are made of it."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from tests.conftest import HERE, run_cli

pytestmark = pytest.mark.slow
PARTS = """
import numpy as np, tensorflow as tf
from edgesparse.data import from_arrays

def noise():
    random = np.random.default_rng(0)
    x = random.random((400, 8), np.float32)
    return from_arrays("noise", x, random.integers(0, 4, 400))

def scaling():
    layers = tf.keras.layers
    inputs = tf.keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255, name="scaling")(inputs)
    x = layers.Dense(8, "relu")(layers.Flatten()(x))
    return tf.keras.Model(inputs, layers.Dense(2, "softmax")(x))
"""
PIPELINE = """
name: p
data: {DATA}
model: {MODEL}
train: {epochs: EPOCHS, batch_size: 16, learning_rate: 1.0e-2}
variants:
  dense-f32: {}
  sparse-f32: {sparsify: {method: magnitude, sparsity: 0.5, epochs: 1}}
benchmark: {rounds: 1, min_seconds: 0.05, min_runs: 5, warmup_runs: 2, warmup_seconds: 0}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for both tests: a worker that has imported its code serves them both."""
    folder = tmp_path_factory.mktemp("chance")
    (folder / "devices").mkdir()
    (folder / "devices" / "here.yaml").write_text(HERE)
    (folder / "parts.py").write_text(PARTS)
    return folder


@pytest.fixture
def cli(folder):
    return partial(run_cli, cwd=folder)


def write_pipeline(folder, data, model, epochs):
    text = PIPELINE.replace("DATA", data).replace("MODEL", model).replace("EPOCHS", str(epochs))
    (folder / "p.yaml").write_text(text)


def newest_run(folder):
    return max(folder.glob(".edgesparse/runs/*/results.json")).parent


def results(folder):
    return json.loads((newest_run(folder) / "results.json").read_text())


def test_a_run_ends_where_nothing_was_learned_unless_forced(folder, cli):
    args = "name: mlp, args: {input_shape: [8], classes: 4, widths: [8]}"
    write_pipeline(folder, 'ref: "parts.py:noise"', args, 1)
    done = cli("deploy", "p.yaml", "--device", "here")
    assert done.returncode not in (0, 2), done.stdout
    assert "the dense model is at chance level: accuracy" in done.stderr
    assert "--force" in done.stderr
    assert not results(folder)["rows"]
    assert "sparsify sparse-f32" not in done.stderr
    text = (folder / "p.yaml").read_text()
    (folder / "p.yaml").write_text(
        text + "search:\n  objectives: [accuracy, bytes]\n"
        "  variant: {sparsify: {method: magnitude, sparsity: {range: [0.2, 0.5]}, epochs: 1}}\n"
    )
    done = cli("search", "p.yaml", "--device", "here", "--trials", "1")
    assert "the dense model is at chance level: accuracy" in done.stderr
    assert "sparsify" not in done.stderr
    (folder / "p.yaml").write_text(text)
    done = cli("deploy", "p.yaml", "--device", "here", "--force")
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in results(folder)["rows"]] == ["ok", "ok"]
    # What is made already is shown without asking again.
    assert cli("deploy", "p.yaml", "--device", "here").returncode == 0


@pytest.mark.full
def test_a_model_that_scales_pixels_gets_them_as_they_are(folder, cli):
    random = np.random.default_rng(0)
    for label, name in enumerate(["dark", "light"]):
        (folder / "pictures" / name).mkdir(parents=True)
        for place in range(40):
            pixels = random.integers(0, 100, (8, 8, 3)) + 100 * label
            Image.fromarray(pixels.astype(np.uint8)).save(
                folder / "pictures" / name / f"{place}.png"
            )
    source = "name: image-folder, args: {path: pictures, input_shape: [8, 8, 3]}"
    write_pipeline(folder, source, 'ref: "parts.py:scaling"', 15)
    planned = cli("plan", "p.yaml", "--device", "here")
    assert "pixels stay at 0 to 255: layer scaling scales them" in planned.stdout
    args = "{name: mlp, args: {input_shape: [8, 8, 3], classes: 2, widths: [8]}}"
    text = (folder / "p.yaml").read_text()
    (folder / "q.yaml").write_text(text.replace("dense-f32: {}", f"dense-f32: {{model: {args}}}"))
    other = cli("plan", "q.yaml", "--device", "here")
    assert other.returncode == 2
    assert "the models of some variants scale pixels and those of others do not" in other.stderr
    done = cli("deploy", "p.yaml", "--device", "here")
    assert done.returncode == 0, done.stderr
    row = results(folder)["rows"][0]
    assert row["metrics"][0]["device"] > 0.9
    transform = (newest_run(folder) / "models" / "transform.json").read_text()
    assert json.loads(transform)["x"]["scale"] == [1.0, 1.0, 1.0]
