"""What is stored how, for which runtime, and what is said about it."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.tflite.convert import convert
from edgesparse.tflite.format.inspect import inspect
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from edgesparse.tflite.runtimes.storage import store, summary
from tests.tflite.test_convert import answers

WIDTH = 512
TFLITE = Profile(Machine("tflite-runtime", "2.14.0", "x86_64"))
LITERT = Profile(Machine("ai-edge-litert", "2.1.6", "x86_64"))
PI = Profile(Machine("tflite-runtime", "2.14.0", "aarch64"))


def dense_layer(block, sparsity=0.9):
    inputs = tf.keras.Input((WIDTH,))
    layer = tf.keras.layers.Dense(WIDTH, bias_initializer="random_normal", name="wide")
    model = tf.keras.Model(inputs, layer(inputs))
    kept = np.random.default_rng(5).random((WIDTH // block, WIDTH)) > sparsity
    layer.kernel.assign(layer.kernel * np.repeat(kept, block, axis=0))
    return model


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(6).normal(size=(8, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def files(x):
    """By scheme and width of the blocks in which zeros come."""
    return {
        (scheme, block): convert(dense_layer(block), scheme, x, one_scale=True)
        for scheme, block in (("f32", 1), ("f32", 4), ("int8", 1), ("int8", 16), ("dynamic", 16))
    }


@pytest.mark.parametrize(
    ("profile", "scheme", "block", "form"),
    [
        (TFLITE, "f32", 1, "random"),
        (TFLITE, "f32", 4, "block-1x4"),
        (LITERT, "f32", 4, "block-1x4"),
        (PI, "f32", 1, "densify"),
        (TFLITE, "int8", 1, "densify"),
        (LITERT, "int8", 1, "dense"),
        (TFLITE, "int8", 16, "block-1x16"),
        (LITERT, "int8", 16, "block-1x16"),
        (PI, "int8", 16, "block-1x16"),
        (LITERT, "dynamic", 16, "dense"),
    ],
)
def test_auto_takes_what_pays_else_what_is_small(files, profile, scheme, block, form):
    content = files[scheme, block]
    stored, (decision,) = store(content, profile, "auto")
    assert decision.form == form
    assert (len(stored) < 0.5 * len(content)) == (form != "dense")
    assert len(stored) <= len(content)
    assert inspect(stored).zeros == inspect(content).zeros


def test_random_int8_zeros_run_on_the_locked_runtime(files, x):
    """The converter's own file fails there."""
    content = files["int8", 1]
    expected = answers(content, x)
    step = np.abs(expected).max() / 100
    for mode in ("auto", "sparse"):
        stored, _ = store(content, LITERT, mode)
        assert np.abs(answers(stored, x) - expected).max() <= step
    assert len(stored) < len(content), "sparse takes blocks, slower as they are"


def test_a_weight_that_stays_dense_says_why(files):
    _, decisions = store(files["int8", 1], LITERT, "auto")
    (line,) = summary(decisions)
    assert line.startswith(
        "1 weight stored dense: ai-edge-litert 2.1.6: its XNNPACK requires constant"
    )
    assert "block-1x16 kernel takes" in line
    _, decisions = store(files["dynamic", 16], LITERT, "sparse")
    assert "rejects it sparse" in decisions[0].reason
    assert summary(store(files["f32", 4], LITERT, "auto")[1]) == []


def test_few_zeros_stay_dense(x):
    content = convert(dense_layer(1, sparsity=0.1), "f32", x)
    stored, (decision,) = store(content, TFLITE, "sparse")
    assert decision.form == "dense"
    assert "zeros are too few for a smaller file" in decision.reason
    assert len(stored) <= len(content)


def test_dense_is_dense(files):
    stored, (decision,) = store(files["f32", 4], LITERT, "dense")
    assert decision.form == "dense"
    assert inspect(stored).storage == "dense"


def test_exploited_zeros_are_explained_with_their_share(files):
    _, (decision,) = store(files["f32", 4], LITERT, "auto")
    assert decision.stored_share == pytest.approx(0.1, abs=0.01)
    assert decision.speedup > 2
    assert "10% of it is stored, about" in decision.reason
