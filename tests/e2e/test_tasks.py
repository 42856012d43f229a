"""Other tasks than one label a sample, on this machine from YAML to table."""

import json
import subprocess
import sys

import numpy as np
import pytest

from edgesparse.docs import PAGES
from tests.conftest import run_cli
from tests.tools.documents import blocks, programs

TASKS = PAGES / "reference" / "tasks.md"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MINE = """
import numpy as np
import tensorflow as tf
from edgesparse.data import from_arrays

L = tf.keras.layers
R = np.random.default_rng(0)


def sums():
    x = R.random((300, 8), dtype=np.float32)
    return from_arrays("sums", x, x.sum(axis=1))


def number():
    model = tf.keras.Sequential(
        [tf.keras.Input((8,)), L.Dense(32, "relu"), L.Dense(32, "relu"), L.Dense(1)]
    )
    model.compile(tf.keras.optimizers.Adam(0.01), "huber")
    return model


def masks():
    x = R.random((120, 8, 8, 3), dtype=np.float32)
    return from_arrays("masks", x, (x[..., 0] > 0.5).astype(int), ["no", "yes"])


def pixels():
    image = tf.keras.Input((8, 8, 3))
    x = L.Conv2D(16, 3, padding="same", activation="relu")(image)
    return tf.keras.Model(image, L.Conv2D(1, 1, activation="sigmoid")(x))
"""
HEAD = """
name: {name}
data: {{ref: "mine.py:{data}"}}
model: {{ref: "mine.py:{model}"}}
train: {{epochs: 12, batch_size: 16{train}}}
benchmark: {{rounds: 2, min_seconds: 0.2, min_runs: 20, warmup_seconds: 0.05}}
variants:
  dense-f32: {{}}
"""


def deploy(folder, text, *arguments):
    (folder / "p.yaml").write_text(text)
    done = run_cli("deploy", "p.yaml", "--json", *arguments, cwd=folder)
    found = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return done, found.get("rows", [])


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """The page's own example of several inputs and outputs, with more variants."""
    folder = tmp_path_factory.mktemp("heads")
    (text,) = (text for text in blocks(TASKS, "yaml") if text.startswith("name: two-heads\n"))
    (folder / "my_heads.py").write_text(programs()["my_heads.py"])
    text = text.replace("epochs: 2", "epochs: 30") + (
        "  sparse-f32: {sparsify: {method: magnitude, sparsity: 0.6, epochs: 4}}\n"
        "  smaller-int8: {sparsify: {method: channels, ratio: 0.5, epochs: 4}, quantize: int8}\n"
        "  wide: {quantize: int16x8}\n"
        "benchmark: {rounds: 2, min_seconds: 0.2, min_runs: 20, warmup_seconds: 0.05}\n"
        "gates: [{variant: sparse-f32, metric: kind accuracy_drop, max: 0.5}]\n"
        "release: dense-int8\n"
    )
    done, rows = deploy(folder, text)
    return folder, done, rows


@pytest.mark.full
def test_several_inputs_and_outputs_go_all_the_way(heads):
    _, done, rows = heads
    assert done.returncode == 0, done.stderr
    assert {row["status"] for row in rows} == {"ok"}
    for row in rows:
        names = [score["name"] for score in row["metrics"]]
        assert names[0] == "kind accuracy"
        assert {"size mae", "size rmse", "size r2", "kind f1"} <= set(names)
        kind, mae = row["metrics"][0], row["metrics"][names.index("size mae")]
        assert kind["device"] > 0.5  # A third by chance.
        assert kind["ci95"][0] <= kind["device"] <= kind["ci95"][1]
        assert mae["direction"] == "minimize"
        assert len(row["details"]["kind"]["confusion"]) == 3
    drops = [row["metrics"][0]["drop_ci95"] for row in rows if row["variant"] != "dense-f32"]
    assert all(low <= high for low, high in drops)


@pytest.mark.full
def test_the_release_takes_a_file_for_each_input(heads):
    folder, done, _ = heads
    (release,) = json.loads(done.stdout)["releases"]
    np.save(folder / "a.npy", np.ones(12, np.float32))
    np.save(folder / "b.npy", np.ones(2, np.float32))
    predict = f"{release['folder']}/predict.py"
    command = [sys.executable, predict, f"side={folder}/b.npy", f"signal={folder}/a.npy"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    swapped = [sys.executable, predict, f"{folder}/a.npy", f"{folder}/b.npy"]
    assert subprocess.run(swapped, capture_output=True, text=True, check=True).stdout == said
    assert "# kind" in said
    assert "# size" in said
    few = subprocess.run([sys.executable, predict, "a.npy"], capture_output=True, text=True)
    assert few.returncode == 1
    assert "Its inputs: signal (npy), side (npy)" in few.stderr


@pytest.mark.full
def test_the_page_says_the_metric_by_its_name(heads):
    folder, _, _ = heads
    # A narrow terminal folds long titles.
    table = run_cli("report", "--format", "markdown", cwd=folder).stdout
    assert "kind accuracy %" in table
    assert "±" in table
    plan = run_cli("plan", "p.yaml", "--notes", cwd=folder).stdout
    assert "task: kind: classification, 3 classes, from probabilities; size: regression" in plan


@pytest.mark.full
def test_numbers_are_judged_by_their_error_and_a_compiled_model_keeps_what_it_has(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    text = HEAD.format(name="numbers", data="sums", model="number", train="") + (
        "  sparse-f32: {sparsify: {method: magnitude, sparsity: 0.5, epochs: 6}}\n"
        "  dense-int8: {quantize: int8}\n"
        "gates: [{variant: dense-int8, metric: mae, max: 1.0},"
        " {variant: sparse-f32, metric: mae_drop, max: -5}]\n"
    )
    plan_at = tmp_path / "p.yaml"
    plan_at.write_text(text)
    plan = run_cli("plan", "p.yaml", cwd=tmp_path).stdout
    assert "task: regression; mae counts" in plan
    assert "loss and optimizer from the model's own compile(), learning rate 0.01" in plan
    done, rows = deploy(tmp_path, text)
    assert done.returncode == 3, done.stderr  # It is not better by five.
    for row in rows:
        (score, *_) = row["metrics"]
        assert score["name"] == "mae"
        assert score["device"] < 0.5
    done, _ = deploy(tmp_path, text.replace("mae_drop", "accuracy_drop"))
    assert done.returncode == 2
    assert "unknown metric 'accuracy_drop' for this task" in done.stderr


@pytest.mark.full
def test_masks_and_uint8(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    text = HEAD.format(name="masks", data="masks", model="pixels", train=", learning_rate: 0.02")
    text += (
        "  camera: {quantize: uint8}\n"
        "  few-values: {sparsify: {method: weight-sharing, clusters: 8, epochs: 3}}\n"
        "  aware: {quantize: {scheme: uint8, qat: true, epochs: 2}}\n"
    )
    done, rows = deploy(tmp_path, text)
    assert done.returncode == 0, done.stderr
    for row in rows:
        (score, *_) = row["metrics"]
        assert score["name"] == "mean-iou"
        assert score["device"] > 0.6, row["variant"]
    sizes = {row["variant"]: row["model"]["bytes_gzip"] for row in rows}
    assert sizes["few-values"] < sizes["dense-f32"]
