"""What pays in a file, in words and in bytes."""

from dataclasses import replace

import numpy as np
import pytest

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.encode import Encoding, encode
from edgesparse.tflite.format.sparse_layout import Dense, along
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from edgesparse.tflite.runtimes.explain import (
    delegated,
    describe,
    entropy_bytes,
    explain,
    pattern_of,
)
from edgesparse.tflite.runtimes.storage import store
from tests.tools.int8_model import Zeros
from tests.tools.sparse_networks import NETWORKS

TFLITE = Profile(Machine("tflite-runtime", "2.14.0", "x86_64"))
LITERT = Profile(Machine("ai-edge-litert", "2.1.6", "x86_64"))


def test_every_weight_is_described(tflite_files, sparse_dense_layer):
    dense = {t.name: t for t in describe(tflite_files["dense"].read_bytes())}
    kernel = sparse_dense_layer.get_layer("wide").kernel.numpy()
    wide = dense["wide"]
    assert (wide.op, wide.shape, wide.dtype) == ("FULLY_CONNECTED", (512, 512), "float32")
    assert wide.zeros == np.sum(kernel == 0)
    assert (wide.pattern, wide.form) == ("random", "dense")
    assert wide.stored_bytes == wide.dense_bytes == 512 * 512 * 4
    sparse = {t.name: t for t in describe(tflite_files["sparse"].read_bytes())}["wide"]
    assert sparse.form == "densify"
    assert sparse.stored_bytes < sparse.dense_bytes
    assert sparse.entropy_bytes == wide.entropy_bytes


def test_the_bound_is_mask_and_values():
    half = np.zeros(8000, np.float32)
    half[::2] = np.arange(1, 4001)
    assert entropy_bytes(half) == 8000 / 8 + 4000 * 4
    two = np.where(np.arange(8000) % 4 < 2, 0, np.arange(8000) % 4 - 1).astype(np.int8)
    assert entropy_bytes(two) == 8000 / 8 + 4000 / 8
    assert entropy_bytes(np.zeros((4, 4), np.int8)) == 0
    everywhere = np.arange(1, 101, dtype=np.float32)
    assert entropy_bytes(everywhere) == 400


def test_blocks_cost_less_to_tell():
    random = np.random.default_rng(0)
    kept = np.repeat(random.random((64, 4)) < 0.25, 16, axis=1)
    values = np.where(kept, random.integers(1, 100, kept.shape), 0).astype(np.int8)
    assert pattern_of(Dense(values)) == "block-1x16"
    assert entropy_bytes(values, "block-1x16") < entropy_bytes(values)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (lambda v: v, "-"),
        (lambda v: np.where(np.arange(32)[:, None] < 16, 0, v), "outputs"),
        (lambda v: v * (np.random.default_rng(1).random(v.shape) < 0.3), "random"),
    ],
)
def test_patterns_have_names(change, pattern):
    values = np.random.default_rng(0).normal(size=(32, 64))
    assert pattern_of(Dense(change(values))) == pattern


def test_what_pays_depends_on_the_runtime(tflite_files):
    content = tflite_files["sparse"].read_bytes()
    for profile in (TFLITE, LITERT):
        (wide,) = [e for e in explain(content, profile) if e.name == "wide"]
        assert wide.accepted
        assert not wide.exploited
        assert "converts it to dense at load time: smaller file, same speed" in wide.reason
    (classifier,) = [e for e in explain(content, LITERT) if e.name == "classifier"]
    assert classifier.reason == "no zeros"


def test_a_runtime_that_refuses_is_named(tflite_files):
    """int8 weights stored by single zeros: the older runtime takes them."""
    content = tflite_files["int8"].read_bytes()
    by_row = Encoding(along(2, 1), densify=True)
    stored = encode(content, lambda c: by_row if c.values.shape == (512, 512) else None)
    for profile, accepted in ((TFLITE, True), (LITERT, False)):
        (wide,) = [e for e in explain(stored, profile) if e.name == "wide"]
        assert wide.accepted is accepted
    assert "requires constant int8 weights" in wide.reason
    assert wide.advised == "dense"


def test_a_damaged_file_is_an_error(tflite_files):
    content = tflite_files["dense"].read_bytes()[:3000]
    for read in (describe, lambda c: explain(c, LITERT)):
        with pytest.raises(UsageError, match="truncated or damaged"):
            read(content)


RATIOS = {
    ("f32", "random"): 1.4,
    ("f16", "random"): 1.65,
    ("int8", "random"): 2.15,
    ("f32", "block-1x4"): 1.1,
    ("int8", "block-1x16"): 1.25,
}
"""Bytes over the entropy bound at 90 % zeros, at most: indices of 8 or 16 bits instead of a coded
mask, and for int8 whole bytes instead of coded values."""


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "zeros"), RATIOS)
def test_at_90_percent_zeros_a_file_is_near_the_bound(scheme, zeros):
    import tensorflow as tf

    from edgesparse.tflite.convert import convert
    from tests.conftest import converters_own

    inputs = tf.keras.Input((512,))
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(512, name="wide")(inputs))
    random, width = np.random.default_rng(3), {"random": 1}.get(zeros) or int(zeros[8:])
    kernel = random.normal(size=(512, 512))
    kept = np.repeat(random.random((512 // width, 512)) < 0.1, width, axis=0)
    model.get_layer("wide").set_weights([kernel * kept, random.normal(size=512)])
    x = random.normal(size=(4, 512)).astype(np.float32)
    dense = convert(model, scheme, x, one_scale=True)
    # The older runtime takes every form.
    stored, _ = store(dense, Profile(Machine("tflite-runtime", "2.14.0", "aarch64")), "sparse")
    (wide,) = describe(stored)
    ratio = wide.stored_bytes / wide.entropy_bytes
    print(f"{scheme} {zeros}, stored as {wide.form}: {ratio:.2f} times the bound")
    assert wide.pattern == zeros
    assert ratio <= RATIOS[scheme, zeros]
    assert len(stored) < 0.4 * len(dense)
    if scheme == "f32":
        assert len(stored) <= len(converters_own(model))


def test_what_the_delegate_makes_of_each_int8_layer():
    cpu = frozenset({"asimddp", "asimdhp"})
    profile = Profile(Machine("ai-edge-litert", "2.1.6", "aarch64", cpu), delegate=True)
    content = NETWORKS["resnet8"](Zeros(0.8))
    lines = explain(content, profile)
    skipped = [line for line in lines if "delegate edgesparse skips its zeros" in line.reason]
    assert len(skipped) == 8
    assert all(line.exploited and line.accepted for line in skipped)
    ours = delegated(content, profile)
    assert ours.text.startswith("delegate edgesparse runs 12 of 14 nodes; not MEAN")
    assert 1.5 < ours.ratio < 3
    # Single zeros leave few blocks empty.
    lines = explain(NETWORKS["resnet8"](Zeros(0.6, (1, 1))), profile)
    assert any("too few of its blocks of 4 inputs are zero" in line.reason for line in lines)
    dense = NETWORKS["resnet8"](Zeros(0.3))
    assert any("leaves it: too few zeros" in line.reason for line in explain(dense, profile))
    assert delegated(dense, profile).ratio == 1
    assert delegated(content, replace(profile, delegate=False)) is None
