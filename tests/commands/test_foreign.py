"""Files that others made: what they leave open, what nobody runs, what would help."""

import json

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import encode
from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.inspect import inspect
from edgesparse.tflite.format.signature import explain_custom, read_signature
from tests.conftest import run_cli

pytestmark = pytest.mark.slow
L = tf.keras.layers


def converted(model, *, sparse=False, flex=False):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if sparse:
        lite = tf.lite.Optimize
        converter.optimizations = [lite.EXPERIMENTAL_SPARSITY, lite.DEFAULT]
        width = model.input_shape[-1]
        sample = np.random.default_rng(0).random((1, width), np.float32)
        converter.representative_dataset = lambda: ([sample] for _ in range(4))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if flex:
        sets = tf.lite.OpsSet
        converter.target_spec.supported_ops = [sets.TFLITE_BUILTINS, sets.SELECT_TF_OPS]
    return converter.convert()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    image = tf.keras.Input((None, None, 3), name="image")
    x = L.GlobalAveragePooling2D()(L.Conv2D(16, 3)(image))
    (folder / "open.tflite").write_bytes(converted(tf.keras.Model(image, L.Dense(4)(x))))
    inputs = tf.keras.Input((64,))
    model = tf.keras.Model(inputs, L.Dense(4)(L.Dense(256)(L.Dense(256)(inputs))))
    random = np.random.default_rng(1)
    for layer in model.layers[1:]:
        layer.kernel.assign(layer.kernel * (random.random(layer.kernel.shape) > 0.9))
    (folder / "sparse.tflite").write_bytes(converted(model, sparse=True))
    inputs = tf.keras.Input((16,))
    flex = tf.keras.Model(inputs, tf.linalg.det(tf.reshape(inputs, (-1, 4, 4))))
    (folder / "flex.tflite").write_bytes(converted(flex, flex=True))
    return folder


def bench(folder, *arguments):
    return run_cli("bench", *arguments, "--quick", "--json", cwd=folder)


def test_an_open_size_must_be_named(folder):
    done = bench(folder, "open.tflite")
    assert done.returncode == 2
    assert "input image is dynamic, ?x?x?x3; set its shape: --input-shape image=1x" in done.stderr
    done = bench(folder, "open.tflite", "--input-shape", "image=1x32x32x4")
    assert done.returncode == 2
    assert "shape 1x32x32x4 does not match input image, ?x?x?x3" in done.stderr
    for wrong, said in (("imag=1x8x8x3", "did you mean 'image'"), ("1x0x8x3", "write 1x224")):
        done = bench(folder, "open.tflite", "--input-shape", wrong)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    # A named shape is what is measured: one image has four times the pixels of the other.
    times = []
    for shape in ("1x64x64x3", "image=1x256x256x3"):
        done = bench(folder, "open.tflite", "--input-shape", shape)
        assert done.returncode == 0, done.stderr
        times.append(json.loads(done.stdout)["rows"][0]["latency_ms"]["p50"])
    assert times[1] > 4 * times[0]


def test_what_no_runtime_has_is_named_with_what_to_do(folder):
    done = bench(folder, "flex.tflite")
    assert done.returncode == 1
    for row in json.loads(done.stdout)["rows"]:
        assert "TensorFlow operators (MatrixDeterminant)" in row["error"]
        assert "convert it without SELECT_TF_OPS" in row["error"]
    shown = run_cli("inspect", "flex.tflite", cwd=folder).stdout
    assert "operators: 1 RESHAPE, 1 FlexMatrixDeterminant" in " ".join(shown.split())
    assert "Flex delegate" in shown
    assert explain_custom(["MyOp"]).startswith("it has custom operators (MyOp)")
    assert explain_custom(["edgetpu-custom-op"]) is None


def test_a_refusal_that_is_known_is_explained_and_the_remedy_works(folder):
    done = bench(folder, "sparse.tflite", "--delegate", "xnnpack")
    rows = {row["runtime"]["name"]: row for row in json.loads(done.stdout)["rows"]}
    refused = rows["ai-edge-litert"]
    assert (
        "stored in a refused format: its XNNPACK requires constant int8 weights" in refused["error"]
    )
    assert "'edgesparse encode sparse.tflite OUT.tflite --device local" in refused["error"]
    said = run_cli(
        "encode", "sparse.tflite", "out.tflite", "--runtime", "ai-edge-litert", cwd=folder
    )
    assert said.returncode == 0, said.stderr
    assert "0 of 3 weights stored sparse" in said.stdout
    again = bench(folder, "out.tflite")
    rows = {row["runtime"]["name"]: row for row in json.loads(again.stdout)["rows"]}
    assert rows["ai-edge-litert"]["status"] == "ok"
    before, after = (
        inspect((folder / name).read_bytes()) for name in ("sparse.tflite", "out.tflite")
    )
    assert (before.zeros, before.parameters) == (after.zeros, after.parameters)
    with pytest.raises(UsageError, match="unknown runtime 'litert'"):
        encode(folder / "sparse.tflite", folder / "o.tflite", runtime="litert", project=folder)


def test_threads_beyond_the_cores_are_not_measured(folder):
    done = bench(folder, "out.tflite", "--threads", "200")
    assert done.returncode == 1
    for row in json.loads(done.stdout)["rows"]:
        assert row["error"].startswith("200 threads exceed ")
        assert "would wait for one another; use at most" in row["error"]


def test_ends_are_read_by_name_and_in_order(folder):
    found = read_signature((folder / "open.tflite").read_bytes())
    (image,) = found.inputs
    assert (image.name, image.shape, image.dtype) == ("image", (-1, -1, -1, 3), "float32")
    assert image.is_dynamic
    assert found.operators["CONV_2D"] == 1
    assert not found.stateful
