"""Zeros between operators."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.tflite.activation_zeros import zeros_between
from edgesparse.tflite.convert import convert


@pytest.mark.parametrize("scheme", ["f32", "int8"])
def test_they_are_those_of_the_rectifiers(scheme, tmp_path):
    tf.keras.utils.set_random_seed(2)
    layers = tf.keras.layers
    inputs = tf.keras.Input((12,))
    hidden = layers.Dense(40, "relu", name="hidden")(inputs)
    model = tf.keras.Model(inputs, layers.Dense(3)(hidden))
    x = np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32)
    (tmp_path / "m.tflite").write_bytes(convert(model, scheme, x))
    np.save(tmp_path / "x.npy", x)
    result = zeros_between(tmp_path / "m.tflite", tmp_path / "x.npy")
    expected = np.mean(tf.keras.Model(inputs, hidden)(x).numpy() == 0)
    assert max(result.values()) == pytest.approx(expected, abs=0.001 if scheme == "f32" else 0.05)


def test_samples_that_do_not_fit_are_errors(tflite_files, crashing_model, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    with pytest.raises(UsageError, match=r"has shape \(3,\), expected \[512\]"):
        zeros_between(tflite_files["dense"], tmp_path / "x.npy")
    with pytest.raises(UsageError, match="is not a NumPy array"):
        zeros_between(tflite_files["dense"], tmp_path / "no.npy")
    (tmp_path / "short.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(UsageError, match="is not a NumPy array"):
        zeros_between(tflite_files["dense"], tmp_path / "short.npz")
    np.savez(tmp_path / "x.npz", a=np.zeros(2), b=np.zeros(2))
    with pytest.raises(UsageError, match="has no array"):
        zeros_between(tflite_files["dense"], tmp_path / "x.npz")
    np.save(tmp_path / "x.npy", np.zeros((2, 512), np.float32))
    with pytest.raises(EdgesparseError):
        zeros_between(crashing_model, tmp_path / "x.npy")
