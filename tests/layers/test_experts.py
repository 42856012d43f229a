"""Mixtures of experts."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesparse.layers import Experts
from edgesparse.spec.errors import EdgesparseError
from edgesparse.tflite.convert import convert
from tests.layers.conftest import check_converted, check_gradients, check_saved

L = tf.keras.layers
SCHEMES = ("f32", "f16", "dynamic", "int8")


def reference(layer, x):
    """Sample by sample, as the papers have it."""
    router, *_ = layer.router.numpy(), None
    found = []
    for sample in x:
        pooled = sample if sample.ndim == 1 else sample.mean(axis=0)
        answers = pooled @ router
        chosen = np.argsort(-answers, kind="stable")[: layer.top_k]
        gates = np.exp(answers[chosen] - answers[chosen].max())
        gates /= gates.sum()
        total = 0
        for gate, expert in zip(gates, chosen, strict=True):
            h = np.maximum(
                0, sample @ layer.kernel_in.numpy()[expert] + layer.bias_in.numpy()[expert]
            )
            out = h @ layer.kernel_out.numpy()[expert] + layer.bias_out.numpy()[expert]
            total = total + gate * out
        found.append(total)
    return np.stack(found)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_it_is_the_sum_of_the_chosen(experts, top_k, long, seed):
    top_k = min(top_k, experts)
    x = np.random.default_rng(seed).normal(size=(3, 5, 7) if long else (3, 7)).astype(np.float32)
    layer = Experts(4, 6, experts, top_k)
    layer(x)
    layer.bias_in.assign(np.random.default_rng(seed).normal(size=layer.bias_in.shape))
    expected = reference(layer, x)
    np.testing.assert_allclose(layer(x).numpy(), expected, atol=1e-5)
    # One at a time their weights are gathered.
    one = np.concatenate([layer(tf.constant(x[i : i + 1])).numpy() for i in range(3)])
    np.testing.assert_allclose(one, expected, atol=1e-5)


def mixture(shape=(12,), compute="chosen"):
    tf.keras.utils.set_random_seed(4)
    x = inputs = tf.keras.Input(shape)
    x = Experts(16, 8, 6, 2, compute=compute, name="experts")(x)
    x = L.GlobalAveragePooling1D()(x) if len(shape) == 2 else x
    return tf.keras.Model(inputs, L.Dense(4)(x))


def test_gradients():
    check_gradients(
        Experts(3, 4, 3, 3), [np.random.default_rng(0).normal(size=(2, 5)).astype("f4")]
    )


@pytest.mark.parametrize("shape", [(12,), (6, 12)])
def test_it_is_saved_and_read(shape, tmp_path):
    check_saved(
        mixture(shape), [np.random.default_rng(0).random((3, *shape), np.float32)], tmp_path
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "compute"),
    [
        ((12,), "chosen"),
        ((6, 12), "all"),
        pytest.param((12,), "all", marks=pytest.mark.full),
        pytest.param((6, 12), "chosen", marks=pytest.mark.full),
    ],
)
def test_every_scheme_on_every_runtime(shape, compute, tmp_path):
    x = np.random.default_rng(0).normal(size=(24, *shape)).astype(np.float32)
    # A choice that is close may be another one with fewer bits.
    check_converted(mixture(shape, compute), [x], tmp_path, SCHEMES, least=0.7)


def test_sixteen_bits_are_refused_with_the_reason():
    with pytest.raises(EdgesparseError, match="not yet supported for op: 'TOPK_V2'"):
        convert(mixture(), "int16x8", np.zeros((2, 12), np.float32))


def test_balance_is_one_where_all_are_used_alike():
    layer = Experts(4, 4, 4, 1, balance=1.0, noise=0.0)
    x = np.eye(4, dtype=np.float32)
    layer(x)
    layer.router.assign(50 * np.eye(4))
    layer(x, training=True)
    assert float(layer.losses[-1]) == pytest.approx(1.0, abs=1e-3)
    layer.router.assign(np.array([[50, 0, 0, 0]] * 4))
    layer(x, training=True)
    assert float(layer.losses[-1]) == pytest.approx(4.0, abs=1e-3)
    layer(x, training=False)
    assert not layer.losses


def test_what_one_inference_reads():
    layer = mixture().get_layer("experts")
    each = 12 * 8 + 8 + 8 * 16 + 16
    assert layer.active_weights() == 12 * 6 + 2 * each


def test_wrong_settings_are_said():
    with pytest.raises(ValueError, match="top_k is 3, of 2 experts"):
        Experts(4, 4, 2, 3)
    with pytest.raises(ValueError, match="compute is 'chosen' or 'all'"):
        Experts(4, 4, compute="some")
