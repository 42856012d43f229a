"""A pipeline with data, a model and methods of its own."""

import json

import pytest

from tests.e2e.conftest import deploy, rows

pytestmark = pytest.mark.slow


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
    from edgesparse.methods.coverage import LayerSparsity, Sparsified
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
            test_samples: 0}
"""
    )
    done = deploy(folder)
    found = rows(folder)
    assert found["own"].status == "ok", done.stderr
    assert found["own"].model.sparsity > 0.2
    assert found["broken"].status == "failed"
    assert "KeyError" in found["broken"].error
    assert "conversion lost 460 of 460 zeros" in found["lost"].error
    assert "hello from my own method" not in done.stdout
    (log,) = (folder / ".edgesparse" / "runs").glob("*/log.txt")
    assert "hello from my own method" in log.read_text()


@pytest.mark.full
def test_weights_that_a_builder_reads_by_itself_count(folder, cli):
    """By h5py, in C: nothing in the pipeline names the file."""
    import tensorflow as tf

    layers = tf.keras.layers
    model = tf.keras.Sequential([tf.keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)])
    model.save(folder / "lm.h5")
    (folder / "notes.txt").write_text("1")
    (folder / "mine.py").write_text(
        "from pathlib import Path\nimport tensorflow as tf\nHERE = Path(__file__).parent\n"
        "def build():\n"
        "    body = tf.keras.models.load_model(HERE / 'lm.h5')\n"
        "    return tf.keras.Sequential([*body.layers, tf.keras.layers.Softmax()])\n"
    )
    (folder / "tiny.yaml").write_text(
        "name: tiny\ndata: {name: digits, args: {input_shape: [8, 8, 1]}}\n"
        "model: {ref: 'mine.py:build'}\ntrain: {epochs: 1}\nvariants: {dense: {}}\n"
    )

    def planned():
        done = cli("plan", "tiny.yaml", "--json")
        assert done.returncode == 0, done.stderr
        return {one["label"]: one for one in json.loads(done.stdout)["stages"]}

    assert cli("run", "tiny.yaml").returncode == 0
    (folder / "notes.txt").write_text("2")
    assert {s["why"] for s in planned().values() if not s["cached"]} == set()
    weights = model.layers[-1].kernel
    weights.assign(weights + 1.0)
    model.save(folder / "lm.h5")
    stages = planned()
    assert "lm.h5, which your code reads, has changed" in stages["train"]["why"]
    assert not stages["convert dense"]["cached"]
    done = cli("run", "tiny.yaml")
    assert done.returncode == 0, done.stderr
    assert {s["why"] for s in planned().values() if not s["cached"]} == set()


def test_values_from_the_environment_are_written_nowhere(folder, cli):
    (folder / "mine.py").write_text(
        "import numpy as np\nfrom edgesparse.data import from_arrays\n"
        "def load(token, fails):\n"
        "    print('reading with', token)\n"
        "    if fails:\n"
        "        raise ValueError(f'https://example.org/?token={token} is not found')\n"
        "    x = np.random.default_rng(0).random((200, 16), dtype=np.float32)\n"
        "    return from_arrays('mine', x, (x.mean(axis=1) > 0.5).astype(int))\n"
    )
    text = (
        "name: tiny\ndata: {ref: 'mine.py:load', args: {token: '${TOKEN}', fails: FAILS}}\n"
        "model: {name: mlp, args: {input_shape: [16], classes: 2, widths: [8]}}\n"
        "train: {epochs: 1}\nvariants: {dense: {}}\n"
    )
    said = ""
    for fails in ("false", "true"):
        (folder / "tiny.yaml").write_text(text.replace("FAILS", fails))
        done = cli("run", "tiny.yaml", TOKEN="open-sesame")
        assert (done.returncode != 0) == (fails == "true"), done.stderr
        said += done.stdout + done.stderr + str(cli("plan", "tiny.yaml", TOKEN="open-sesame"))
    assert "token=${TOKEN} is not found" in said
    assert "open-sesame" not in said
    for path in (folder / ".edgesparse").rglob("*"):
        if path.suffix in (".json", ".txt"):
            assert "open-sesame" not in path.read_text(), path
