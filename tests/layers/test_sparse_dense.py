"""Rows that are read, and those that are not."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesparse.layers import SparseDense, TopK
from tests.layers.conftest import check_converted, check_gradients, check_saved

L = tf.keras.layers


def pairs(count, n, inputs, seed=0):
    random = np.random.default_rng(seed)
    ids = np.stack([random.choice(inputs, n, replace=False) for _ in range(count)])
    values = random.integers(0, 4, (count, n)).astype(np.float32)
    return ids.astype(np.int32), values


def dense(ids, values, inputs):
    """The vectors that the pairs stand for."""
    found = np.zeros((len(ids), inputs), np.float32)
    for row, (places, numbers) in enumerate(zip(ids, values, strict=True)):
        np.add.at(found[row], places, numbers)
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(12, 40),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_it_is_the_dense_product(count, n, inputs, units, seed):
    ids, values = pairs(count, n, inputs, seed)
    layer = SparseDense(units, inputs, "relu")
    found = layer([ids, values]).numpy()
    expected = np.maximum(0, dense(ids, values, inputs) @ layer.kernel.numpy() + layer.bias.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_id_that_comes_twice_counts_twice():
    layer = SparseDense(3, 5)
    found = layer([np.array([[2, 2]], np.int32), np.array([[1.0, 2.0]], np.float32)]).numpy()
    np.testing.assert_allclose(found[0], 3 * layer.kernel.numpy()[2], atol=1e-6)


def bag(inputs=400, n=12):
    tf.keras.utils.set_random_seed(4)
    ids, counts = (
        tf.keras.Input((n,), dtype="int32", name="ids"),
        tf.keras.Input((n,), name="counts"),
    )
    x = SparseDense(16, inputs, "relu", name="table")([ids, counts])
    return tf.keras.Model([ids, counts], L.Dense(4, "softmax")(x))


def test_gradients():
    ids, values = pairs(3, 4, 9)
    check_gradients(SparseDense(5, 9), [ids, values])


def test_it_is_saved_and_read(tmp_path):
    check_saved(bag(), pairs(4, 12, 400), tmp_path)


@pytest.mark.slow
def test_every_scheme_on_every_runtime(tmp_path):
    check_converted(bag(), pairs(24, 12, 400), tmp_path)


def test_what_one_inference_reads():
    model = bag()
    assert model.get_layer("table").active_weights() == 12 * 16 + 16


def sparse_hidden(k=8):
    tf.keras.utils.set_random_seed(4)
    x = inputs = tf.keras.Input((20,))
    x = L.Dense(64, "relu")(x)
    x = SparseDense(16, 64, "relu", name="reads")(TopK(k)(x))
    return tf.keras.Model(inputs, L.Dense(4, "softmax")(x))


def test_top_k_and_the_layer_behind_it():
    x = np.random.default_rng(0).random((6, 20), dtype=np.float32)
    model = sparse_hidden()
    hidden = model.layers[1](x).numpy()
    order = np.argsort(-hidden, axis=1)[:, :8]
    kept = np.zeros_like(hidden)
    np.put_along_axis(kept, order, np.take_along_axis(hidden, order, 1), 1)
    reads = model.get_layer("reads")
    expected = model.layers[-1](
        tf.nn.relu(kept @ reads.kernel.numpy() + reads.bias.numpy())
    ).numpy()
    np.testing.assert_allclose(model(x).numpy(), expected, atol=1e-5)
    assert reads.active_weights() == 8 * 16 + 16


@pytest.mark.slow
def test_top_k_is_saved_and_learns(tmp_path):
    x = np.random.default_rng(0).random((200, 20), dtype=np.float32)
    y = (x[:, :4].argmax(axis=1)).astype(int)
    model = sparse_hidden(16)
    check_saved(model, [x[:4]], tmp_path)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    history = model.fit(x, y, epochs=30, verbose=0)
    assert history.history["accuracy"][-1] > 0.7
    with pytest.raises(ValueError, match="k must be 1 to 4, not 9"):
        TopK(9)(np.zeros((1, 4), np.float32))


@pytest.mark.slow
def test_top_k_in_every_scheme_on_every_runtime(tmp_path):
    x = np.random.default_rng(0).random((24, 20), dtype=np.float32)
    check_converted(sparse_hidden(), [x], tmp_path, ("f32", "f16", "dynamic", "int8"))


def test_inputs_that_left_take_no_rows(tmp_path):
    model = bag()
    table = model.get_layer("table")
    kernel = table.kernel.numpy()
    kernel[np.random.default_rng(0).random(400) < 0.8] = 0
    table.kernel.assign(kernel)
    given = pairs(6, 12, 400)
    expected = model(list(given)).numpy()
    smaller, weights = table.compact()
    smaller(list(given))
    smaller.set_weights(weights)
    np.testing.assert_allclose(smaller(list(given)).numpy(), table(list(given)).numpy(), atol=1e-6)
    assert smaller.kernel.shape[0] == int((kernel != 0).any(axis=1).sum()) + 1
    # Once more: what left stays away.
    left = smaller.kernel.numpy()
    left[:5] = 0
    smaller.kernel.assign(left)
    again, weights = smaller.compact()
    again(list(given))
    again.set_weights(weights)
    np.testing.assert_allclose(again(list(given)).numpy(), smaller(list(given)).numpy(), atol=1e-6)
    assert again.kernel.shape[0] == len(left) - 5
    clone = tf.keras.models.clone_model(
        model, clone_function=lambda layer: again if layer is table else
        type(layer).from_config(layer.get_config())
    )  # fmt: skip
    clone.save(tmp_path / "m.keras")
    read = tf.keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(read(list(given)).numpy(), clone(list(given)).numpy(), atol=1e-6)
    assert expected.shape == (6, 4)
