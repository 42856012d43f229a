"""Files of Keras 3: rebuilt in Keras 2 with equal outputs, or an error that names the layer."""

import os
import subprocess
import sys

import numpy as np
import pytest

from edgesparse import models
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import ModelSource

MAKE = """
import keras, numpy as np
from own import Factor

L, O = keras.layers, keras.ops
random = np.random.default_rng(0)

def save(name, model):
    x = random.normal(0, 2, (5, *model.input_shape[1:])).astype("float32")
    for number, y in enumerate(ys := keras.tree.flatten(model(x, training=False))):
        ys[number] = np.asarray(y)
    np.savez(f"{name}.npz", x, *ys)
    for suffix in ("keras", "h5"):
        model.save(f"{name}.{suffix}")

def conv(x, *more, **named):
    return L.Conv2D(3, 1, *more, **named)(x)

i = keras.Input((8, 6, 4))
flat = L.Dense(5)(L.Flatten()(i))
normalization = L.Normalization()
normalization.adapt(random.normal(3, 2, (200, 8, 6, 4)).astype("float32"))
save("operations", keras.Model(i, [
    O.mean(conv(i), axis=[1, 2]),
    O.softmax(conv(i), axis=1),
    O.concatenate([conv(i), i * 2], axis=-1),
    O.max(i, axis=1),
    O.mean(flat, axis=1, keepdims=True),
    flat / O.sqrt(O.sum(O.square(flat), axis=-1, keepdims=True)),
    O.transpose(i, (0, 2, 1, 3)),
    O.reshape(i, (-1, 96)),
    O.squeeze(O.expand_dims(i, axis=1), axis=1),
    i[:, 1:-1, ::2] + i[:, 2:, 1::2],
    i[..., 0],
    O.clip(i, -0.5, 0.5),
    O.leaky_relu(i, negative_slope=0.3),
    O.gelu(flat),
    O.cast(O.absolute(i[..., 1]), "int32"),
    1 - L.Dense(3, activation="sigmoid")(flat),
    flat * np.arange(5, dtype="float32"),
]))
i = keras.Input((8, 6, 4))
rows = L.Reshape((8, 24))(i)
save("layers", keras.Model(i, [
    conv(3 * i, activation="hard_sigmoid"),
    conv(i, activation="hard_silu"),
    L.Activation("celu")(i),
    L.Bidirectional(L.LSTM(3, recurrent_activation="hard_sigmoid"))(rows),
    L.LeakyReLU(negative_slope=0.2)(i),
    L.ReLU(max_value=6, negative_slope=0.1)(4 * i),
    L.Resizing(4, 4)(i),
    L.Dropout(0.5)(i, training=True),
    normalization(i),
    L.SpectralNormalization(L.Conv2D(3, 1))(i),
    L.GroupNormalization(2)(i),
]))
i = keras.Input((4,))
save("factor", keras.Model(i, L.Dense(3)(Factor(name="doubled")(L.Dense(4, name="before")(i)))))
save("untranslated", keras.Model(i, O.cumprod(L.Dense(4)(i), axis=1)))
"""
# A layer of the user's that is another in each Keras.
OWN = """
import tensorflow as tf

class Factor(tf.keras.layers.Layer):
    def call(self, x):
        return x * (2.0 if self.__class__.__mro__[1].__module__.startswith("keras") else 2.5)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras3")
    (folder / "own.py").write_text(OWN)
    (folder / "make.py").write_text(MAKE)
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "0"}
    subprocess.run([sys.executable, "make.py"], cwd=folder, env=environment, check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["keras", pytest.param("h5", marks=pytest.mark.full)])
@pytest.mark.parametrize("name", ["operations", pytest.param("layers", marks=pytest.mark.full)])
def test_operations_and_layers_equal_keras_3(folder, name, suffix):
    model, _ = models.build_with_notes(ModelSource(ref=f"{name}.{suffix}"), folder)
    with np.load(folder / f"{name}.npz") as stored:
        x, *expected = stored.values()
    for number, (values, y) in enumerate(zip(model(x), expected, strict=True)):
        np.testing.assert_allclose(values, y, atol=1e-4, err_msg=f"output {number}")


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_different_outputs_name_the_layer(folder, suffix):
    source = ModelSource(ref=f"factor.{suffix}", custom_objects=["own.py:Factor"])
    with pytest.raises(UsageError, match=r"outputs differ in Keras 2 from layer doubled on;"):
        models.build(source, folder)


@pytest.mark.slow
@pytest.mark.full
def test_untranslated_operation_is_named(folder):
    with pytest.raises(
        UsageError, match=r"operation cumprod \(keras.ops Cumprod\) has no translation"
    ):
        models.build(ModelSource(ref="untranslated.keras"), folder)
