"""What fails in a run: its row says why, and the others are there."""

import json

import pytest

from edgesparse.graph.workspace import Workspace
from tests.conftest import HERE, TINY, run_cli
from tests.e2e.conftest import deploy, edit, rows

pytestmark = pytest.mark.slow


def test_a_failed_stage_fails_its_variant_only(trained):
    edit(trained, "pattern: block-1x4", "exclude: ['dense*']")
    done = deploy(trained)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    found = rows(trained)
    assert found["dense-f32"].status == "ok"
    assert found["sparse-f32"].status == "failed"
    assert "sparsity, reached" in found["sparse-f32"].error
    assert "set 'allow_partial: true'" in found["sparse-f32"].error
    assert "sparse-f32 [1] FAILED" in " ".join(done.stdout.split())


def test_a_glob_that_matches_nothing_is_told_before_anything_is_trained(folder):
    edit(folder, "pattern: block-1x4", "exclude: [no_such_layer]")
    done = deploy(folder)
    assert done.returncode == 2
    assert "tiny.yaml:9:" in done.stderr
    assert "'no_such_layer' matches no layer" in done.stderr
    assert "train ..." not in done.stderr


def test_run_verifies_without_a_benchmark(trained):
    done = run_cli("run", "tiny.yaml", "--json", cwd=trained)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["rows"]
    assert {r["status"] for r in found} == {"ok"}
    assert all(r["latency_ms"] is None and r["metrics"][0]["host"] for r in found)


def test_a_runtime_that_is_missing_or_of_another_version(trained):
    text = HERE.replace("[ai-edge-litert]", "[{name: ai-edge-litert, version: 9.9.9}]")
    (trained / "devices" / "here.yaml").write_text(text)
    done = deploy(trained)
    assert done.returncode == 1
    assert "but its file requires 9.9.9" in done.stdout


def test_a_device_that_cannot_be_used_keeps_what_is_finished(trained):
    (trained / "file").touch()
    text = HERE.replace("name: here", "name: broken").replace("work\n", "file/sub\n")
    (trained / "devices" / "broken.yaml").write_text(text)
    done = deploy(trained, "--device", "broken")
    assert done.returncode == 1
    assert "device broken: cannot write to" in done.stderr
    assert "Traceback" not in done.stderr
    assert {r.status for r in Workspace(trained).results().rows if r.device == "here"} == {"ok"}


GRU = """
import numpy as np, tensorflow as tf
from edgesparse.data import from_arrays
layers = tf.keras.layers

def data():
    random = np.random.default_rng(0)
    return from_arrays("waves", random.random((60, 8, 4)), np.arange(60) % 3)

def model():
    return tf.keras.Sequential(
        [tf.keras.Input((8, 4)), layers.GRU(8), layers.Dense(3, activation="softmax")]
    )

def crashes(model, dataset):
    import ctypes
    ctypes.string_at(0)

def dies(model, dataset):
    import os
    os.kill(os.getpid(), 9)  # As Linux does when memory runs out.
"""


@pytest.mark.full
def test_a_crash_is_one_failed_row_and_the_others_are_there(folder):
    """As TensorFlow's C++ parts and users' code do; recurrent layers, on whose loops the quantizer
    crashes, do not."""
    (folder / "own.py").write_text(GRU)
    start = TINY.index("variants:")
    text = TINY[TINY.index("train:") : start] + TINY[TINY.index("benchmark:") :]
    (folder / "tiny.yaml").write_text(
        "name: crash\ndata: {ref: own.py:data}\nmodel: {ref: own.py:model}\n"
        + text
        + """
variants:
  dense-f32: {}
  int8: {quantize: int8}
  crashed: {sparsify: {method: "own.py:crashes"}}
  killed: {sparsify: {method: "own.py:dies"}}
  f16: {quantize: f16}
"""
    )
    done = deploy(folder, "--force")  # There is nothing to learn.
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "Segmentation" not in done.stderr
    found = rows(folder)
    assert {name: row.status for name, row in found.items()} == {
        "dense-f32": "ok", "int8": "ok", "crashed": "failed", "killed": "failed", "f16": "ok",
    }  # fmt: skip
    assert found["crashed"].error.startswith(
        "sparsify crashed: its process crashed (SIGSEGV) in ctypes/__init__.py (string_at)"
    )
    assert found["killed"].error == (
        "sparsify killed: its process was killed (SIGKILL), probably out of memory"
    )
    store = Workspace(folder).store
    assert store.problems() == []
    assert not [path for path in store.root.iterdir() if path.name.startswith("tmp-")]
    assert not list(folder.glob("core*"))
