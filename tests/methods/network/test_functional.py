"""Any model as a flat functional one, which answers as it did."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.data import Tensor
from edgesparse.methods.network.functional import functional, is_flat
from edgesparse.spec.errors import EdgesparseError, UsageError
from tests.methods.network.test_kernels import check_each_weight_is_a_kernel_or_has_a_reason
from tests.methods.networks import BUILDERS, FAMILIES, IMAGE, TOKENS, frozen, nested, shape_of

L = tf.keras.layers


# Of each way in which networks differ one; the others where time does not count.
EACH = [
    pytest.param(name, marks=[] if name in FAMILIES else [pytest.mark.slow]) for name in BUILDERS
]


def data(shape):
    return {"x": Tensor(shape, "float32")}


def dtype_of(name):
    return "int32" if shape_of(name) == TOKENS else "float32"


@pytest.mark.parametrize("name", EACH)
def test_the_answers_are_the_same_and_nothing_is_inside_of_anything(name):
    model = BUILDERS[name]()
    shape = shape_of(name)
    flat = functional(model, {"x": Tensor(shape, dtype_of(name))}, name)
    assert is_flat(flat, {})
    assert not any(isinstance(layer, tf.keras.Model) for layer in flat.layers)
    x = np.random.default_rng(0).integers(0, 9, (3, *shape)).astype(np.float32) / 4
    np.testing.assert_array_equal(model(x, training=False), flat(x, training=False))
    assert flat.count_params() == model.count_params()
    check_each_weight_is_a_kernel_or_has_a_reason(flat)
    # Made once, it stays what it is.
    assert functional(flat, {}, name) is flat


def test_what_is_flat_is_left_alone():
    model = BUILDERS["conv2d"]()
    assert functional(model, {}, "m") is model


def test_a_base_that_does_not_train_stays_so():
    """The statistics of its batch normalization do not move, as the tutorials want it."""
    flat = functional(nested(training=False), data(IMAGE), "m")
    normalization = next(x for x in flat.layers if isinstance(x, L.BatchNormalization))
    before = normalization.moving_mean.numpy()
    flat(np.ones((4, *IMAGE), np.float32), training=True)
    np.testing.assert_array_equal(before, normalization.moving_mean)
    moving = functional(nested(), data(IMAGE), "m")
    normalization = next(x for x in moving.layers if isinstance(x, L.BatchNormalization))
    moving(np.ones((4, *IMAGE), np.float32), training=True)
    assert np.abs(normalization.moving_mean.numpy()).max() > 0


def test_frozen_layers_stay_frozen():
    flat = functional(frozen(), data(IMAGE), "m")
    assert len(flat.trainable_weights) == 2


def test_open_sizes_become_the_datas():
    inputs = tf.keras.Input((None, None, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(8, 3)(inputs))
    flat = functional(tf.keras.Model(inputs, L.Dense(4)(x)), data((16, 12, 3)), "m")
    assert tuple(flat.inputs[0].shape) == (None, 16, 12, 3)


def test_models_in_models_in_models():
    inner = tf.keras.Sequential([tf.keras.Input((8,)), L.Dense(8, "relu")], name="inner")
    middle_in = tf.keras.Input((8,))
    middle = tf.keras.Model(middle_in, L.Add()([inner(middle_in), middle_in]), name="middle")
    inputs = tf.keras.Input((8,))
    model = tf.keras.Model(inputs, L.Dense(4)(middle(middle(inputs))))
    flat = functional(model, data((8,)), "m")
    x = np.random.default_rng(0).random((3, 8), dtype=np.float32)
    np.testing.assert_array_equal(model(x), flat(x))
    assert flat.count_params() == model.count_params()


def test_what_is_no_graph_is_told():
    class Looping(tf.keras.Model):
        def call(self, x):
            return tf.constant(np.asarray(x) + 1)

    with pytest.raises(
        UsageError, match=r"the model of m cannot be converted to a graph of layers"
    ):
        functional(Looping(), data((4,)), "m")


def test_a_model_that_is_another_one_layer_by_layer_is_refused():
    """Its call asks what it is given: Keras' own tensors while a graph of layers is made."""

    class Sly(tf.keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = tf.keras.layers.Dense(4, name="inner")
            self.last = tf.keras.layers.Dense(2, name="last")

        def call(self, x):
            x = self.inner(x)
            return self.last(x if tf.keras.backend.is_keras_tensor(x) else 2 * x)

    samples = {"x": np.ones((3, 5), np.float32)}
    with pytest.raises(EdgesparseError, match=r"sly: building it again .*, from layer last on"):
        functional(Sly(), {"x": Tensor((5,), "float32")}, "sly", samples=lambda: samples)


def test_an_ellipsis_becomes_indices_that_can_be_saved(tmp_path):
    i = tf.keras.Input((8, 8, 4))
    x = L.Conv2D(6, 3, name="first")(i)
    parts = [x[..., :2], x[..., tf.newaxis][..., 3, 0], x[:, 1:3, ..., 0], x[..., 1:, :]]
    model = tf.keras.Model(i, [L.Flatten()(part) for part in parts])
    flat = functional(model, data((8, 8, 4)), "own")
    assert is_flat(flat, data((8, 8, 4)))
    flat.save(tmp_path / "m.keras")
    again = tf.keras.models.load_model(tmp_path / "m.keras")
    given = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    for before, after in zip(model(given), again(given), strict=True):
        np.testing.assert_array_equal(before, after)
