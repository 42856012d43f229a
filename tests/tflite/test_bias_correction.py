"""Biases of int8 files that keep the layers' means."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.bias_correction import correct_biases
from edgesparse.tflite.convert import convert
from edgesparse.tflite.format.encode import serialize
from edgesparse.tflite.format.flatbuffer import constants, open_model, set_values

pytestmark = pytest.mark.slow  # Each test converts a network.

random = np.random.default_rng(0)
LAYERS = ["one", "deep", "point", "out"]


def network(last=4):
    tf.keras.utils.set_random_seed(3)
    layers = tf.keras.layers
    i = tf.keras.Input((12, 12, 8))
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu6", name="one")(i)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="deep")(x)
    x = layers.Conv2D(24, 1, name="point")(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = tf.keras.Model(i, layers.Dense(last, name="out")(x))
    for layer in model.layers:
        if layer.weights:  # Shared by nobody, and none of them zero.
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, random.normal(size=bias.shape) / 4])
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("files"), network()
    x = random.normal(size=(60, 12, 12, 8)).astype(np.float32)
    np.save(folder / "x.npy", x)
    for scheme in ("f32", "int8"):
        (folder / f"{scheme}.tflite").write_bytes(convert(model, scheme, x))
    (folder / "other.tflite").write_bytes(convert(network(5), "int8", x))
    return folder


def biases(content):
    model = open_model(content, "x")
    found = {}
    for one in constants(model, content):
        if one.slot == 2:
            scales = np.asarray(model.subgraphs[0].tensors[one.tensor].quantization.scale)
            found[one.operator] = (one, one.values * scales, scales)
    return model, found


def test_means_that_were_moved_come_back(files, tmp_path):
    """Biases are moved by a seventh of what their layer sums up, as coarse weights would."""
    content = (files / "int8.tflite").read_bytes()
    model, own = biases(content)
    assert len(own) == len(LAYERS)
    for constant, values, scales in own.values():
        moved = values + np.sign(random.normal(size=values.shape)) / 7
        set_values(model, constant, np.rint(moved / scales).astype(np.int32))
    moved = tmp_path / "moved.tflite"
    moved.write_bytes(serialize(model, aligned=True))
    done = correct_biases(files / "f32.tflite", moved, files / "x.npy", tmp_path / "out.tflite")
    assert done.layers == len(LAYERS)
    assert done.after < done.before / 4
    _, found = biases((tmp_path / "out.tflite").read_bytes())
    for place, (_, values, _) in own.items():
        # Not what they were to the last digit: rounding moved the means, too.
        assert found[place][1] == pytest.approx(values, abs=0.03)


def test_a_file_that_gets_no_nearer_stays_as_it_was(files, tmp_path):
    exact, target = files / "f32.tflite", tmp_path / "out.tflite"
    done = correct_biases(exact, exact, files / "x.npy", target)
    assert (done.layers, done.before, done.after) == (0, 0.0, 0.0)
    assert target.read_bytes() == exact.read_bytes()


def test_other_networks_and_samples_are_refused(files, tmp_path):
    target = tmp_path / "out.tflite"
    with pytest.raises(UsageError, match="layers differ from the float file"):
        correct_biases(files / "f32.tflite", files / "other.tflite", files / "x.npy", target)
    np.save(tmp_path / "y.npy", np.zeros((9, 3), np.float32))
    with pytest.raises(UsageError, match=r"a sample of .* has shape"):
        correct_biases(files / "f32.tflite", files / "int8.tflite", tmp_path / "y.npy", target)
    assert not target.exists()
