"""What is refused before anything is trained, with the way out."""

import pytest

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

def nchw():
    i = tf.keras.Input((3, 8, 8))
    x = K.SeparableConv2D(4, 3, data_format="channels_first", name="first")(i)
    return tf.keras.Model(i, K.Dense(2, "softmax")(K.Flatten()(x)))
"""


@pytest.mark.parametrize(
    ("load", "build", "message"),
    [
        ("text", "tokens", "layer table (Embedding) takes 0 to 19: set its input_dim to 40"),
        (
            "images",
            "nchw",
            "layer first takes channels first (NCHW): TFLite conversion failed: ",
        ),
    ],
)
def test_models_that_do_not_take_the_data_are_refused(cli, tmp_path, load, build, message):
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "p.yaml").write_text(
        f'name: p\ndata: {{ref: "parts.py:{load}"}}\nmodel: {{ref: "parts.py:{build}"}}\n'
        "train: {epochs: 1}\nvariants:\n  dense: {}\n"
    )
    done = cli("plan", "p.yaml")
    assert done.returncode == 2
    assert message in done.stderr
    assert "p.yaml:3:8: " in done.stderr
    assert "Traceback" not in done.stderr
