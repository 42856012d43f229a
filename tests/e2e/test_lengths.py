"""A length that stays open in the file, from YAML to a release."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgesparse.graph.workspace import Workspace
from edgesparse.tflite.format.signature import read_signature
from tests.conftest import HERE, run_cli

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(600)]
MINE = """
import numpy as np
import tensorflow as tf
from edgesparse.data import from_datasets

L = tf.keras.layers


def load():
    def part(count, seed):
        def samples():
            random = np.random.default_rng(seed)
            for number in range(count):
                time = np.arange(random.integers(20, 60))
                wave = np.sin(time * (0.3 if number % 2 else 0.9) + random.uniform(0, 6))
                noise = random.normal(0, 0.1, (len(time), 2))
                yield (wave[:, None] + noise).astype("float32"), number % 2
        signature = (tf.TensorSpec((None, 2), tf.float32), tf.TensorSpec((), tf.int64))
        return tf.data.Dataset.from_generator(samples, output_signature=signature)
    return from_datasets("waves", part(240, 0), part(40, 1), part(80, 2), ["fast", "slow"])


def build():
    x = inputs = tf.keras.Input((None, 2))
    x = L.Conv1D(16, 5, activation="relu")(x)
    x = L.Conv1D(16, 5, activation="relu")(x)
    return tf.keras.Model(inputs, L.Dense(2, "softmax")(L.GlobalMaxPooling1D()(x)))


def fixed():
    x = inputs = tf.keras.Input((None, 2))
    x = L.Conv1D(8, 5, activation="relu")(x)
    return tf.keras.Model(inputs, L.Dense(2, "softmax")(Flat()(x)))


class Flat(L.Layer):
    def call(self, x):
        return tf.reshape(x, (-1, 36 * 8))
"""
PIPELINE = """
name: waves
data: {ref: "mine.py:load"}
model: {ref: "mine.py:build"}
train: {epochs: 6, batch_size: 16, learning_rate: 5.0e-3}
variants:
  dense-f32: {}
  dense-int8: {quantize: int8}
  sparse-f32: {sparsify: {method: magnitude, sparsity: 0.6, epochs: 3}}
  fixed-f32: {model: {ref: "mine.py:fixed"}}
benchmark: {input_shapes: {x: [40, 2]}, rounds: 1, min_seconds: 0.1, min_runs: 10}
release: dense-f32
"""


def test_the_file_takes_any_length(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "p.yaml").write_text(PIPELINE)
    (tmp_path / "here.yaml").write_text(HERE)
    done = run_cli("deploy", "p.yaml", "--device", "here.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    rows = {row["variant"]: row for row in found["rows"]}
    assert {row["status"] for row in rows.values()} == {"ok"}, found
    for name in ("dense-f32", "dense-int8", "sparse-f32"):
        assert rows[name]["metrics"][0]["device"] > 0.8, name
        assert "dynamic shapes kept; benchmarked with x of 40x2" in rows[name]["notes"]
    (note,) = rows["fixed-f32"]["notes"]
    assert note.startswith("the file supports x of 40x2 only: ")
    # The release answers samples of other lengths.
    folder = Path(found["releases"][0]["folder"])
    assert read_signature((folder / "model.tflite").read_bytes()).inputs[0].shape == (1, -1, 2)
    for length in (25, 55):
        wave = np.sin(np.arange(length) * 0.3)[:, None].repeat(2, axis=1).astype(np.float32)
        np.save(tmp_path / "x.npy", wave)
        said = subprocess.run(
            [sys.executable, folder / "predict.py", tmp_path / "x.npy"],
            capture_output=True,
            text=True,
        )
        assert said.returncode == 0, said.stderr
        assert said.stdout.startswith("slow\t"), said.stdout
    assert Workspace(tmp_path).results().rows


def test_a_missing_length_is_said_before_training(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("input_shapes: {x: [40, 2]}, ", ""))
    done = run_cli("run", "p.yaml", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "x has samples of different sizes [?, 2]" in done.stderr
    assert "Traceback" not in done.stderr
