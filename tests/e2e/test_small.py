"""Whole runs of a tiny pipeline: failures, references, gates, interrupts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgesparse.graph.store import Store
from edgesparse.graph.workspace import Workspace
from tests.conftest import HERE, TINY, run_cli

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.yaml").write_text(HERE)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


@pytest.fixture
def trained(folder, give_models):
    """The same with its models."""
    give_models(folder)
    return folder


def deploy(folder, *more):
    return run_cli("deploy", "tiny.yaml", "--device", "here", *more, cwd=folder)


def rows(folder):
    return {r.variant: r for r in Workspace(folder).results().rows}


def edit(folder, old, new):
    text = (folder / "tiny.yaml").read_text()
    assert old in text
    (folder / "tiny.yaml").write_text(text.replace(old, new))


def test_every_quantization_and_a_gate_that_is_not_met(trained):
    edit(
        trained,
        "benchmark:",
        """  f16: {quantize: f16}
  dynamic: {quantize: dynamic}
  int8: {quantize: int8}
  qat: {quantize: {scheme: int8, aware: true, epochs: 1}}
  pqat: {sparsify: {method: magnitude, sparsity: 0.8, epochs: 1, schedule: constant},
         quantize: {scheme: int8, aware: true, epochs: 1}}
  one-shot: {sparsify: {method: magnitude, sparsity: 0.4, epochs: 0}, storage: dense}
  untrained: {sparsify: {method: one-shot, sparsity: 0.4}, quantize: int8}
  two-four: {sparsify: {method: magnitude, sparsity: 0.5, pattern: "2:4", epochs: 1}}
gates:
  - {variant: f16, metric: bytes, max: 1}
benchmark:""",
    )
    done = deploy(trained)
    assert done.returncode == 3, done.stderr
    assert "gate NOT MET: f16 bytes" in done.stdout
    found = rows(trained)
    assert {r.status for r in found.values()} == {"ok"}
    for name in ("sparse-f32", "two-four"):
        assert found[name].model.sparsity == pytest.approx(0.5, abs=0.03)
    # ai-edge-litert 2.1 refuses int8 fully connected weights stored by single zeros.
    assert found["pqat"].model.sparsity == pytest.approx(0.8, abs=0.03)
    assert found["pqat"].model.storage == "dense"
    assert "weight stored dense: ai-edge-litert 2.1.6 refuses it sparse" in found["pqat"].notes[0]
    assert found["sparse-f32"].model.storage == "sparse"
    assert found["one-shot"].model.sparsity == pytest.approx(0.4, abs=0.02)
    assert found["one-shot"].model.storage == "dense"
    (told,) = (note for note in found["untrained"].notes if "bias" in note)
    assert "of their range from the float model's without" in told
    assert found["f16"].model.bytes < 0.7 * found["dense-f32"].model.bytes


def test_steps_follow_one_another_and_auto_finds_what_pays(trained):
    edit(
        trained,
        "benchmark:",
        """  smaller: {sparsify: {method: channels, parameters: 0.6, epochs: 1}, quantize: int8}
  both:
    sparsify:
      - {method: channels, ratio: 0.5, epochs: 1}
      - {method: magnitude, sparsity: 0.5, pattern: block-1x16, epochs: 1}
    quantize: {scheme: int8, aware: true, epochs: 1}
  pattern: {sparsify: {method: magnitude, sparsity: 0.9, pattern: auto, epochs: 1}}
  found: {sparsify: {method: magnitude, sparsity: auto, max_accuracy_drop: 0.2, epochs: 1}}
benchmark:""",
    )
    done = deploy(trained)
    assert done.returncode == 0, done.stderr
    found = rows(trained)
    dense = found["dense-f32"].model.parameters
    assert found["smaller"].model.parameters <= 0.6 * dense
    assert found["smaller"].model.sparsity < 0.05
    assert found["smaller"].notes[0].startswith("channels removed: 5")
    assert found["both"].model.parameters < 0.55 * dense
    assert 0.4 < found["both"].model.sparsity < 0.7
    # Fully connected f32 layers: blocks of 4 pay on x86.
    assert found["pattern"].model.sparsity == pytest.approx(0.9, abs=0.02)
    assert found["pattern"].model.storage == "sparse"
    assert found["found"].notes[0].startswith("sparsity by layer: dense_1 0.")
    # The steps of a list are stages of their own.
    labels = [line.split("] ")[1].split(":")[0] for line in done.stderr.splitlines() if ": " in line
              and line.startswith("[")]  # fmt: skip
    assert {"sparsify both (channels)", "sparsify both (magnitude)", "sensitivity found"} <= {
        *labels
    }


def test_a_latency_budget_is_measured_on_the_device(folder):
    """With a tenth of the channels a wide network takes less than 0.8 of its time, whatever else
    goes on; how much less is the device's to say."""
    edit(folder, "widths: [32]", "widths: [1024, 1024]")
    edit(
        folder,
        "benchmark:",
        """  fast: {sparsify: {method: channels, latency: 0.8, epochs: 0}}
  other: {sparsify: {method: channels, latency: 0.001, epochs: 0}}
benchmark:""",
    )
    done = deploy(folder, "--variant", "fast", "--variant", "other")
    assert done.returncode == 1, done.stderr
    found = rows(folder)
    assert found["fast"].status == "ok"
    assert found["fast"].notes[0].startswith("channels removed: ")
    assert found["fast"].model.parameters < found["dense-f32"].model.parameters
    assert "latency: 0.001 cannot be met: " in found["other"].error


def test_a_failed_stage_fails_its_variant_only(trained):
    edit(trained, "pattern: block-1x4", "exclude: ['dense*']")
    done = deploy(trained)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    found = rows(trained)
    assert found["dense-f32"].status == "ok"
    assert found["sparse-f32"].status == "failed"
    assert "zeros were asked for, and" in found["sparse-f32"].error
    assert "say 'allow_partial: true'" in found["sparse-f32"].error
    assert "sparse-f32 [1] FAILED" in " ".join(done.stdout.split())


def test_a_glob_that_matches_nothing_is_told_before_anything_is_trained(folder):
    edit(folder, "pattern: block-1x4", "exclude: [no_such_layer]")
    done = deploy(folder)
    assert done.returncode == 2
    assert "tiny.yaml:9:" in done.stderr
    assert "'no_such_layer' matches no layer" in done.stderr
    assert "train" not in done.stderr


def test_own_data_model_and_method(folder):
    (folder / "mine.py").write_text(
        """
import numpy as np, tensorflow as tf
from edgesparse.data import from_arrays

@tf.keras.utils.register_keras_serializable("mine")
class Scale(tf.keras.layers.Layer):
    def call(self, x):
        return x * 2.0

def load(count):
    x = np.random.default_rng(0).random((count, 16), dtype=np.float32)
    return from_arrays("mine", x, (x.mean(axis=1) > 0.5).astype(int))

def build(width):
    k = tf.keras
    wide, last = k.layers.Dense(width), k.layers.Dense(2, "softmax")
    return k.Sequential([k.Input((16,)), Scale(), wide, last])

def prune(model, threshold):
    print("hello from my own method")
    for layer in model.layers:
        for weight in layer.trainable_weights:
            if len(weight.shape) == 2:
                weight.assign(tf.where(tf.abs(weight) < threshold, 0.0, weight))
    return model

def broken(model):
    raise KeyError("oops")

def lying(model):
    from edgesparse.sparsity.report import LayerSparsity, Sparsified
    layer = LayerSparsity("dense", (16, 32), "unstructured", 0.9, 460, 512)
    return Sparsified(model, {}, (layer,))
"""
    )
    (folder / "tiny.yaml").write_text(
        """
name: tiny
data: {ref: "mine.py:load", args: {count: 200}}
model: {ref: "mine.py:build", args: {width: 32}}
train: {epochs: 1}
variants:
  dense: {}
  own: {sparsify: {method: "mine.py:prune", args: {threshold: 0.1}}}
  broken: {sparsify: {method: "mine.py:broken"}}
  lost: {sparsify: {method: "mine.py:lying"}}
benchmark: {rounds: 1, min_seconds: 0.05, min_runs: 5, warmup_runs: 2, warmup_seconds: 0,
            accuracy_samples: 0}
"""
    )
    done = deploy(folder)
    found = rows(folder)
    assert found["own"].status == "ok", done.stderr
    assert found["own"].model.sparsity > 0.2
    assert found["broken"].status == "failed"
    assert "KeyError" in found["broken"].error
    assert "460 of 460 zeros were lost on the way to the .tflite" in found["lost"].error
    assert "hello from my own method" not in done.stdout
    (log,) = (folder / ".edgesparse" / "runs").glob("*/log.txt")
    assert "hello from my own method" in log.read_text()


def test_run_verifies_without_a_benchmark(trained):
    done = run_cli("run", "tiny.yaml", "--json", cwd=trained)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["rows"]
    assert {r["status"] for r in found} == {"ok"}
    assert all(r["latency_ms"] is None and r["accuracy"]["host"] for r in found)


def test_a_runtime_that_is_missing_or_of_another_version(trained):
    text = HERE.replace("[ai-edge-litert]", "[{name: ai-edge-litert, version: 9.9.9}]")
    (trained / "devices" / "here.yaml").write_text(text)
    done = deploy(trained)
    assert done.returncode == 1
    assert "but its file asks for 9.9.9" in done.stdout


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
    done = deploy(folder)
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
        "sparsify killed: its process was killed (SIGKILL): most likely the memory ran out"
    )
    store = Store(folder / ".edgesparse" / "store")
    assert store.problems() == []
    assert not [path for path in store.root.iterdir() if path.name.startswith("tmp-")]
    assert not list(folder.glob("core*"))


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "edgesparse", *arguments],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background ignores Ctrl-C, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_ctrl_c_while_training_keeps_the_store_and_the_next_run_goes_on(folder):
    edit(folder, "epochs: 1, batch_size: 64", "epochs: 1000, batch_size: 64")
    process = start(folder, "deploy", "tiny.yaml", "--device", "here")
    for line in process.stderr:
        if "train: " in line:
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted; finished stages are kept" in rest
    assert "Traceback" not in rest
    store = Store(folder / ".edgesparse" / "store")
    assert store.problems() == []
    assert len(list(store.root.iterdir())) == 3, "the preflight, the outline and the samples"
    edit(folder, "epochs: 1000", "epochs: 1")
    done = deploy(folder)
    assert done.returncode == 0
    assert "samples: cached" in done.stderr


def test_ctrl_c_while_measuring_keeps_the_rows_and_leaves_no_process(trained):
    edit(trained, "rounds: 1, min_seconds: 0.05", "rounds: 100, min_seconds: 100")
    edit(trained, "min_runs: 5", "min_runs: 500000")
    process = start(trained, "deploy", "tiny.yaml", "--device", "here")
    for line in process.stderr:
        if "benchmark on here: " in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    found = Workspace(trained).results()
    assert not found.finished
    assert [r.status for r in found.rows] == ["ok", "ok"]
    assert all(r.latency_ms.rounds < 100 for r in found.rows)
    assert not _agents(trained)


def test_two_runs_at_once_are_safe(folder):
    both = [start(folder, "deploy", "tiny.yaml", "--device", "here") for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert Store(folder / ".edgesparse" / "store").problems() == []
    assert len(Workspace(folder).run_ids()) == 2


def _agents(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            if str(folder / "work") in command:
                found.append(command)
    return found
