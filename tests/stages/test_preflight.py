"""What is refused before anything is trained, with the way out."""

import pytest

from tests.conftest import run_cli

pytestmark = pytest.mark.slow
PARTS = """
import numpy as np
import tensorflow as tf
from edgesparse.data import from_arrays

K, random = tf.keras.layers, np.random.default_rng(0)

def text():
    return from_arrays("text", random.integers(0, 40, (100, 5)), np.arange(100) % 2)

def tokens():
    i = tf.keras.Input((5,), dtype="int32")
    x = K.GlobalAveragePooling1D()(K.Embedding(20, 4, name="table")(i))
    return tf.keras.Model(i, K.Dense(2, "softmax")(x))

def images():
    return from_arrays("images", random.random((100, 3, 8, 8)), np.arange(100) % 2)

def numbers():
    return from_arrays("numbers", random.random((100, 8)), np.arange(100) % 2)

def pixels():
    i = tf.keras.Input((8, 8, 3))
    return tf.keras.Model(i, K.Dense(2, "softmax")(K.Flatten()(i)))

def nchw():
    i = tf.keras.Input((3, 8, 8))
    x = K.SeparableConv2D(4, 3, data_format="channels_first", name="first")(i)
    return tf.keras.Model(i, K.Dense(2, "softmax")(K.Flatten()(x)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One for all cases: a worker that has imported its code serves them all."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "parts.py").write_text(PARTS)
    return folder


@pytest.mark.parametrize(
    ("load", "build", "message"),
    [
        ("numbers", "pixels", "the model takes [8, 8, 3] but the data gives [8]"),
        ("text", "tokens", "layer table (Embedding) takes 0 to 19: set its input_dim to 40"),
        (
            "images",
            "nchw",
            "layer first takes channels first (NCHW): TFLite conversion failed: ",
        ),
    ],
)
def test_models_that_do_not_take_the_data_are_refused(folder, load, build, message):
    (folder / "p.yaml").write_text(
        f'name: p\ndata: {{ref: "parts.py:{load}"}}\nmodel: {{ref: "parts.py:{build}"}}\n'
        "train: {epochs: 1}\nvariants:\n  dense: {}\n"
    )
    done = run_cli("plan", "p.yaml", cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert "p.yaml:3:8: " in done.stderr
    assert "Traceback" not in done.stderr
