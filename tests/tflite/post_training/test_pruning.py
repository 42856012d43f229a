"""Zeros for ready files, on what they make of samples."""

import json

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.convert import convert
from edgesparse.tflite.format.encode import serialize
from edgesparse.tflite.format.flatbuffer import constants, open_model
from edgesparse.tflite.operator_outputs import open_interpreter, run
from edgesparse.tflite.post_training.normalize import normalize
from edgesparse.tflite.post_training.pruning import reconstruct
from tests.tools.old_file import WIDTHS, old_file

pytestmark = pytest.mark.slow  # Each test converts a network.

random = np.random.default_rng(0)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A network whose inputs depend on one another, as images do; and samples for it."""
    tf.keras.utils.set_random_seed(3)
    layers = tf.keras.layers
    i = tf.keras.Input((12, 12, 8))
    x = layers.Conv2D(24, 3, padding="same", activation="relu", name="one")(i)
    x = layers.Conv2D(32, 1, activation="relu", name="two")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(64, activation="relu", name="three")(x)
    model = tf.keras.Model(i, layers.Dense(4, name="out")(x))
    mix = random.normal(size=(3, 8))
    x = (random.normal(size=(40, 12, 12, 3)) @ mix).astype(np.float32)
    folder = tmp_path_factory.mktemp("files")
    np.save(folder / "x.npy", x)
    for scheme in ("f32", "f16", "int8"):
        (folder / f"{scheme}.tflite").write_bytes(convert(model, scheme, x))
    return folder


def answers(path, x):
    content = path.read_bytes()
    interpreter = open_interpreter(content)
    (end,) = interpreter.get_output_details()
    values = {"input": x}
    values = dict.fromkeys(_inputs(content), x)
    return np.stack(
        [interpreter.get_tensor(end["index"])[0] for _ in run(interpreter, content, values, 99)]
    )


def _inputs(content):
    from edgesparse.tflite.format.signature import read_signature

    return [spec.name for spec in read_signature(content, "x").inputs]


@pytest.mark.parametrize("scheme", ["f32", "f16"])
def test_a_file_gets_zeros_and_answers_nearly_as_before(file, tmp_path, scheme):
    source, target = file / f"{scheme}.tflite", tmp_path / "out.tflite"
    created = reconstruct(source, file / "x.npy", 0.6, "unstructured", target)
    content = target.read_bytes()
    weights = [c for c in constants(open_model(content, "out"), content) if c.is_weight]
    total = sum(c.values.size for c in weights)
    assert sum(c.zeros for c in weights) / total == pytest.approx(0.6, abs=0.03)
    assert {c.values.dtype.name for c in weights} == {"float32" if scheme == "f32" else "float16"}
    assert set(created.layers) == {"one", "two", "three"}
    x = np.load(file / "x.npy")
    before, after = answers(source, x), answers(target, x)
    spread = before.max() - before.min()
    off = float(np.abs(before - after).mean() / spread)
    # A fifth of the samples was kept apart to judge it.
    (loss,) = created.losses
    assert loss.kind == "numbers"
    assert loss.loss < 0.35
    # As far off as it is where the smallest weights go instead.
    plain = _smallest(source, 0.6, tmp_path / "plain.tflite")
    assert off < 0.03
    assert off < 0.4 * np.abs(before - answers(plain, x)).mean() / spread


def test_biases_are_refitted_in_half_precision_and_where_operators_share_one(tmp_path):
    x = random.normal(size=(300, WIDTHS[0])).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    old = old_file()
    model = open_model(normalize(old), "m")
    first, second, _ = model.subgraphs[0].operators
    second.inputs = [*second.inputs[:2], first.inputs[2]]
    for content in (old, serialize(model, aligned=True)):
        (tmp_path / "m.tflite").write_bytes(content)
        target = tmp_path / "out.tflite"
        created = reconstruct(
            tmp_path / "m.tflite", tmp_path / "x.npy", 0.5, "unstructured", target
        )
        assert created.losses[0].loss < 0.2
        before, after = (
            [c for c in constants(open_model(each, "m"), each) if not c.is_weight]
            for each in (content, target.read_bytes())
        )
        assert len(after) == 3
        pairs = list(zip(before, after, strict=content == old))
        # The last layer is too small to be pruned.
        changed = [not np.array_equal(a.values, b.values) for a, b in pairs]
        assert changed[:2] == [True, True] if content == old else changed[0]
        assert {c.values.dtype for c in after} == {before[0].values.dtype}


def _smallest(source, share, target):
    content = bytearray(source.read_bytes())
    for constant in constants(open_model(content, "x"), content):
        if constant.is_weight:
            size = np.abs(constant.values)
            constant.values[size < np.quantile(size, share)] = 0
    target.write_bytes(content)
    return target


def test_impossible_requests_are_refused(file, tmp_path):
    with pytest.raises(UsageError, match="no float weights to prune"):
        reconstruct(file / "int8.tflite", file / "x.npy", 0.5, "unstructured", tmp_path / "o")
    np.save(tmp_path / "few.npy", np.zeros((3, 12, 12, 8), np.float32))
    with pytest.raises(UsageError, match="has 3 samples; at least 10 are required"):
        reconstruct(file / "f32.tflite", tmp_path / "few.npy", 0.5, "unstructured", tmp_path / "o")
    np.save(tmp_path / "wide.npy", np.zeros((20, 5), np.float32))
    with pytest.raises(UsageError, match=r"a sample of .* has shape \(5,\)"):
        reconstruct(file / "f32.tflite", tmp_path / "wide.npy", 0.5, "unstructured", tmp_path / "o")


def test_errors_of_layers_serve_other_sparsities(tmp_path):
    (tmp_path / "m.tflite").write_bytes(old_file())
    np.save(tmp_path / "x.npy", random.normal(size=(60, WIDTHS[0])).astype(np.float32))
    kept, words = tmp_path / "errors.json", (tmp_path / "m.tflite", tmp_path / "x.npy")
    for sparsity, errors in ((0.5, kept), (0.3, kept), (0.3, None)):
        target = tmp_path / f"{sparsity}-{errors is None}"
        reconstruct(*words, sparsity, "unstructured", target, errors=errors)
    assert len(json.loads(kept.read_text())) == 2  # Layers.
    assert (tmp_path / "0.3-True").read_bytes() == (tmp_path / "0.3-False").read_bytes()
