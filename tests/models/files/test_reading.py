"""Saved models of every format, saved by Keras 2, Keras 3 and tfmot."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from edgesparse import models
from edgesparse.models.files.reading import KERAS_3_NOTE, LAMBDA_NOTE
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import ModelSource

L = tf.keras.layers
OWN = """
import tensorflow as tf

class Gated(tf.keras.layers.Layer):
    def __init__(self, units=8, **named):
        super().__init__(**named)
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(shape[-1], self.units))
        self.inner = tf.keras.layers.Dense(4)
        self.inner.build((None, self.units))
        self.built = True

    def call(self, x):
        return self.inner(tf.matmul(x, self.w))

    def get_config(self):
        return {**super().get_config(), "units": self.units}
"""
KERAS_3 = """
import keras, numpy as np
from own import Gated

L = keras.layers
random = np.random.default_rng(0)

def save(name, model, x):
    model.set_weights([random.normal(size=w.shape) * 0.3 for w in model.get_weights()])
    np.savez(f"{name}.npz", x=x, y=model(x).numpy())
    for suffix in ("keras", "h5"):
        model.save(f"{name}.{suffix}")

i = keras.Input((20, 6))
x = L.BatchNormalization()(L.Conv1D(8, 3, padding="same")(i))
x = L.Add()([x, L.MultiHeadAttention(2, 4)(x, x)])
x = keras.ops.relu(x + 1.0)
x = L.Bidirectional(L.GRU(5, return_sequences=True))(x)
x = L.LayerNormalization()(L.Dropout(0.1)(x))
x = L.Dense(3, "softmax")(Gated(6)(L.LSTM(4)(x)))
save("own", keras.Model(i, x), random.random((3, 20, 6)))
i = keras.Input((12, 12, 3))
base = keras.Sequential([keras.Input((12, 12, 3)), L.Conv2D(4, 3), L.ReLU(max_value=6.0),
                         L.DepthwiseConv2D(3), L.SeparableConv2D(6, 3)])
x = L.GlobalAveragePooling2D()(L.Rescaling(2.0, offset=-1.0)(base(i)))
twice = L.Dense(6, activation="gelu", kernel_regularizer="l2")
save("nested", keras.Model(i, L.Dense(2)(twice(twice(x)))), random.random((3, 12, 12, 3)))
save("sequential", keras.Sequential([keras.Input((4,)), L.Dense(8, "relu"), L.Dropout(0.1),
                                     L.Dense(8), L.BatchNormalization(), L.Dense(3)]),
     random.random((3, 4)))
save("rms", keras.Sequential([keras.Input((4,)), L.RMSNormalization(), L.Dense(3)]),
     random.random((3, 4)))
model = keras.Sequential([keras.Input((4,)), L.Dense(3)])
np.savez("graph.npz", x=(x := random.random((3, 4)).astype("float32")), y=model(x).numpy())
model.export("graph")
model.save_weights("only.weights.h5")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    (folder / "own.py").write_text(OWN)
    (folder / "make.py").write_text(KERAS_3)
    # Keras 3 is what TensorFlow gives by default; this process has Keras 2.
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "0"}
    subprocess.run([sys.executable, "make.py"], cwd=folder, env=environment, check=True)
    return folder


def read(folder, name, *custom_objects):
    source = ModelSource(ref=name, custom_objects=list(custom_objects))
    return models.build_with_notes(source, folder)


MORE = [
    ("own", "keras"), ("own", "h5"), ("nested", "h5"), ("sequential", "keras"),
    ("sequential", "h5"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("nested", "keras"),
        *(pytest.param(*case, marks=pytest.mark.full) for case in MORE),
    ],
)
def test_files_of_keras_3_are_rebuilt_in_keras_2(folder, name, suffix):
    model, notes = read(folder, f"{name}.{suffix}", "own.py:Gated")
    assert notes == (KERAS_3_NOTE,)
    assert isinstance(model, tf.keras.Model)
    with np.load(folder / f"{name}.npz") as stored:
        np.testing.assert_allclose(model(stored["x"]).numpy(), stored["y"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own.keras", r"unknown layer Gated \(add it: custom_objects: \[.my_layers.py:Gated.\]\)"),
        pytest.param(
            "rms.keras",
            "Keras 2 has no layer RMSNormalization; name a function",
            marks=pytest.mark.full,
        ),
        (
            "only.weights.h5",
            r"contains weights only; name the function .* weights: only.weights.h5",
        ),
        ("own.npz", "is not a saved Keras model"),
        ("cut.keras", "is not a saved Keras model, or is incomplete"),
        ("pointer.keras", "is a Git LFS pointer"),
    ],
)
def test_unreadable_files(folder, name, message):
    (folder / "cut.keras").write_bytes((folder / "own.keras").read_bytes()[:2000])
    (folder / "pointer.keras").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UsageError, match=message):
        read(folder, name)


@pytest.mark.slow
def test_saved_model_is_converted_unchanged(folder):
    model, notes = read(folder, "graph")
    assert notes == ("signature 'serving_default' is converted unchanged",)
    with np.load(folder / "graph.npz") as stored:
        np.testing.assert_allclose(model(stored["x"]).numpy(), stored["y"], atol=1e-6)


@pytest.mark.slow
def test_weights_of_a_built_model(folder):
    (folder / "builder.py").write_text(
        "import tensorflow as tf\n\n\ndef build(units=3):\n"
        "    L = tf.keras.layers\n"
        "    return tf.keras.Sequential([tf.keras.Input((4,)), L.Dense(units)])\n"
    )
    args = {"ref": "builder.py:build", "weights": "w.weights.h5"}
    original = models.build(ModelSource(ref="builder.py:build"), folder)
    original.save_weights(folder / "w.weights.h5")
    model = models.build(ModelSource(**args), folder)
    np.testing.assert_array_equal(model.get_weights()[0], original.get_weights()[0])
    with pytest.raises(UsageError, match=r"the weights in .* do not fit the model of builder"):
        models.build(ModelSource(**args, args={"units": 5}), folder)


def small():
    return tf.keras.Sequential(
        [tf.keras.Input((8, 8, 3)), L.Conv2D(8, 3, activation="relu"), L.Flatten(), L.Dense(3)]
    )


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_pruning_wrappers_are_removed(tmp_path, suffix):
    pruned = tfmot.sparsity.keras.prune_low_magnitude(small())
    for wrapper in pruned.layers:
        for _, mask, _ in getattr(wrapper, "pruning_vars", ()):
            mask.assign(np.arange(mask.shape.num_elements()).reshape(mask.shape) % 2)
    pruned.save(tmp_path / f"m.{suffix}")
    model, notes = read(tmp_path, f"m.{suffix}")
    assert notes == ("removed pruning wrappers, kept the zeros",)
    assert [type(layer).__name__ for layer in model.layers] == ["Conv2D", "Flatten", "Dense"]
    assert np.mean(model.layers[-1].kernel.numpy() == 0) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_quantization_wrappers_are_removed(tmp_path, suffix):
    original = small()
    aware = tfmot.quantization.keras.quantize_model(original)
    aware.save(tmp_path / f"m.{suffix}")
    model, (note,) = read(tmp_path, f"m.{suffix}")
    assert note.startswith("removed quantization wrappers")
    x = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
    np.testing.assert_allclose(model(x), original(x), atol=1e-5)
    assert not any("Quantize" in type(layer).__name__ for layer in model.layers)


def test_lambda_layer_is_noted(tmp_path):
    model = tf.keras.Sequential([tf.keras.Input((4,)), L.Lambda(lambda t: t * 2.0), L.Dense(3)])
    model.save(tmp_path / "m.keras")
    again, notes = read(tmp_path, "m.keras")
    assert notes == (LAMBDA_NOTE,)
    np.testing.assert_allclose(again(np.ones((1, 4))), model(np.ones((1, 4))))


def _swoosh(x):
    return x * tf.sigmoid(x)


class _Custom(L.Dense):
    pass


@pytest.mark.parametrize(
    ("layer", "suffix", "message"),
    [
        (lambda: L.Dense(3, lambda x: x * 2), "keras", r"a lambda as .* weights: mine.keras}"),
        (lambda: L.Dense(3, lambda x: x * 2), "h5", r"a lambda as .* weights: mine.h5}"),
        (
            lambda: L.Dense(3, _swoosh),
            "keras",
            r"_swoosh is unknown to Keras; .*my_layers.py:_swoosh",
        ),
        (lambda: L.Dense(3, _swoosh), "h5", r"Unknown activation function.* weights: mine.h5}"),
        (lambda: _Custom(3), "keras", r"_Custom is unknown to Keras; .*my_layers.py:_Custom"),
        (lambda: _Custom(3), "h5", r"_Custom is unknown to Keras; .*my_layers.py:_Custom"),
    ],
)
def test_unknown_objects_are_named(tmp_path, layer, suffix, message):
    tf.keras.Sequential([tf.keras.Input((4,)), layer()]).save(tmp_path / f"mine.{suffix}")
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path, f"mine.{suffix}")
    assert len(str(caught.value)) < 400
