"""Attention in blocks, held against attention with the same tokens masked out."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesparse.layers import SparseAttention
from tests.layers.conftest import check_converted, check_gradients, check_saved

L = tf.keras.layers
KINDS = {
    "full": {"window": 0},
    "local": {"window": 8},
    "global": {"window": 8, "global_tokens": 3},
    "random": {"window": 8, "random_blocks": 2},
    "all": {"window": 8, "global_tokens": 5, "random_blocks": 1},
    "strided": {"window": 8, "stride": 2},
}


def reference(layer, x, mask=None):
    """Full attention with what is not attended left out."""
    heads, dim = layer.heads, layer.key_dim

    def projected(name):
        y = x @ getattr(layer, name).numpy() + getattr(layer, f"{name}_bias").numpy()
        return y.reshape(len(x), -1, heads, dim).transpose(0, 2, 1, 3)

    query, key, value = (projected(name) for name in ("query", "key", "value"))
    scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(dim)
    allowed = np.broadcast_to(layer.attends(x.shape[1]), scores.shape)
    if mask is not None:
        allowed = allowed & mask[:, None, None, :].astype(bool)
    scores = np.where(allowed, scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    found = (shares @ value).transpose(0, 2, 1, 3).reshape(len(x), x.shape[1], -1)
    return found @ layer.output_kernel.numpy() + layer.output_bias.numpy()


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.sampled_from([32, 40, 64]), st.integers(0, 99))
def test_it_is_attention_to_those_tokens(kind, length, seed):
    x = np.random.default_rng(seed).normal(size=(2, length, 6)).astype(np.float32)
    layer = SparseAttention(2, 4, **KINDS[kind])
    found = layer(x).numpy()
    np.testing.assert_allclose(found, reference(layer, x), atol=2e-5)


@pytest.mark.parametrize("kind", ["full", "local", "global", "strided"])
def test_padding_is_not_attended(kind):
    x = np.random.default_rng(0).normal(size=(2, 32, 6)).astype(np.float32)
    mask = (np.arange(32)[None] < np.array([[20], [32]])).astype(np.float32)
    layer = SparseAttention(2, 4, **KINDS[kind])
    found = layer([x, mask]).numpy()
    expected = reference(layer, x, np.maximum(mask, 0))
    # A token far behind the end sees padding only, whatever it gives.
    np.testing.assert_allclose(found[0, :20], expected[0, :20], atol=2e-5)
    np.testing.assert_allclose(found[1], expected[1], atol=2e-5)


def test_who_attends_to_whom():
    local = SparseAttention(1, 2, window=8).attends(32)
    assert local.sum(axis=1).tolist() == [12] * 32
    assert local[16, 12:24].all()
    assert not local[16, :8].any()
    both = SparseAttention(1, 2, window=8, global_tokens=3).attends(32)
    assert both[:3].all()
    assert both[:, :3].all()
    strided = SparseAttention(1, 2, window=8, stride=2).attends(32)
    assert set(np.flatnonzero(strided[0]) % 2) == {0}


def model(kind="local", length=32):
    tf.keras.utils.set_random_seed(4)
    x = inputs = tf.keras.Input((length, 8))
    x = L.Add()([x, SparseAttention(2, 4, name="attention", **KINDS[kind])(x)])
    return tf.keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling1D()(x)))


def masked(length=32):
    tf.keras.utils.set_random_seed(4)
    inputs, mask = tf.keras.Input((length, 8), name="x"), tf.keras.Input((length,), name="there")
    x = SparseAttention(2, 4, 8, name="attention")([inputs, mask])
    return tf.keras.Model([inputs, mask], L.Dense(4)(L.GlobalAveragePooling1D()(x)))


@pytest.mark.parametrize("kind", ["local", "all", "strided"])
def test_gradients(kind):
    x = np.random.default_rng(0).normal(size=(1, 32, 4)).astype(np.float32)
    check_gradients(SparseAttention(2, 2, **KINDS[kind]), [x])


def test_it_is_saved_and_read(tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 32, 8)).astype(np.float32)
    check_saved(model("all"), [x], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["all", *(pytest.param(kind, marks=pytest.mark.full) for kind in KINDS if kind != "all")],
)
def test_every_scheme_on_every_runtime(kind, tmp_path):
    x = np.random.default_rng(0).normal(size=(16, 32, 8)).astype(np.float32)
    check_converted(model(kind), [x], tmp_path)


@pytest.mark.slow
@pytest.mark.full
def test_with_padding_in_every_scheme_on_every_runtime(tmp_path):
    x = np.random.default_rng(0).normal(size=(16, 32, 8)).astype(np.float32)
    there = (np.arange(32)[None] < np.arange(16, 32)[:, None]).astype(np.float32)
    check_converted(masked(), [x, there], tmp_path)


def test_the_same_weights_serve_all_patterns():
    x = np.zeros((1, 32, 8), np.float32)
    shapes = []
    for settings_of in KINDS.values():
        layer = SparseAttention(2, 4, **settings_of)
        layer(x)
        shapes.append([w.shape for w in layer.weights])
    assert all(shape == shapes[0] for shape in shapes)


def test_invalid_arguments():
    with pytest.raises(ValueError, match="the length 30 must be a multiple of 4"):
        SparseAttention(1, 2, window=8)(np.zeros((1, 30, 4), np.float32))
    with pytest.raises(ValueError, match="window must be even"):
        SparseAttention(1, 2, window=7)
    with pytest.raises(ValueError, match="stride excludes global_tokens"):
        SparseAttention(1, 2, stride=2, global_tokens=1)
    with pytest.raises(ValueError, match="too few for 9 random"):
        SparseAttention(1, 2, window=8, random_blocks=9)(np.zeros((1, 32, 4), np.float32))
