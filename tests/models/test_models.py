import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import models
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import ModelSource


def build(folder, name, **args):
    return models.build(ModelSource(name=name, args=args), folder)


def test_mlp(tmp_path):
    model = build(tmp_path, "mlp", input_shape=[4, 4, 1], classes=3, widths=[8])
    assert model.count_params() == 16 * 8 + 8 + 8 * 3 + 3
    assert model(np.zeros((2, 4, 4, 1))).shape == (2, 3)


def test_mobilenet_v1_is_the_published_network(tmp_path):
    model = build(tmp_path, "mobilenet_v1", input_shape=[224, 224, 3], classes=1000)
    # Keras Applications' MobileNet: 4,253,864 parameters, 21,888 of them not trainable.
    assert model.count_params() == 4_253_864
    assert model.get_layer("conv_pw_13_relu").output_shape == (None, 7, 7, 1024)


def macs(model):
    """Multiply-accumulates of the convolutions and fully connected layers."""
    total = 0
    for layer in model.layers:
        for weight in layer.weights:
            if "kernel" in weight.name:
                positions = int(np.prod(layer.output_shape[1:-1]))
                per_position = int(np.prod(weight.shape))
                total += positions * per_position
    return total


@pytest.mark.parametrize(
    ("name", "args", "parameters", "million_macs"),
    [
        # The reference models' own summaries (mlcommons/tiny), and Keras Applications'.
        ("autoencoder", {}, 269_992, 0.264),
        ("ds_cnn", {}, 24_908, 2.66),
        ("resnet8", {}, 78_666, 12.5),
        pytest.param(
            "mobilenet_v2",
            {"input_shape": [224, 224, 3], "classes": 1000},
            3_538_984,
            300,
            marks=[pytest.mark.slow, pytest.mark.full],
        ),
    ],
)
def test_models_are_the_published_networks(tmp_path, name, args, parameters, million_macs):
    model = build(tmp_path, name, **args)
    assert model.count_params() == parameters
    assert macs(model) / 1e6 == pytest.approx(million_macs, rel=0.02)
    assert model(np.zeros((1, *model.input_shape[1:]), np.float32)).shape[0] == 1


@pytest.mark.slow
@pytest.mark.full
def test_narrow_mobilenet_v2_is_the_published_network(tmp_path):
    published = tf.keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None)
    model = build(tmp_path, "mobilenet_v2", input_shape=[96, 96, 3], classes=1000, alpha=0.35)
    assert model.count_params() == published.count_params()
    assert macs(model) == macs(published)


@pytest.mark.slow
def test_mobilenet_v2_pads_symmetrically_and_keeps_downsample_strides(tmp_path):
    for downsample in (0, 2, 5):
        args = {"input_shape": [32, 32, 3], "classes": 10, "downsample": downsample}
        model = build(tmp_path, "mobilenet_v2", alpha=0.35, **args)
        strided = [x for x in model.layers if getattr(x, "strides", (1, 1)) == (2, 2)]
        assert len(strided) == downsample
        assert {layer.padding for layer in strided} <= {"valid"}
        assert model.get_layer("conv_last").output_shape[1] == 32 // 2**downsample


@pytest.mark.slow
@pytest.mark.parametrize(("downsample", "size"), [(0, 32), (1, 16), (2, 8), (3, 4), (5, 1)])
def test_mobilenet_v1_keeps_downsample_strides(tmp_path, downsample, size):
    model = build(
        tmp_path,
        "mobilenet_v1",
        input_shape=[32, 32, 3],
        classes=10,
        alpha=0.25,
        downsample=downsample,
    )
    assert model.get_layer("conv_pw_13_relu").output_shape[1] == size


def test_mobilenet_v1_pads_symmetrically(tmp_path):
    model = build(tmp_path, "mobilenet_v1", input_shape=[32, 32, 3], classes=10, alpha=0.25)
    strided = [x for x in model.layers if getattr(x, "strides", (1, 1)) == (2, 2)]
    assert len(strided) == 5
    assert {layer.padding for layer in strided} == {"valid"}
    pads = [x for x in model.layers if isinstance(x, tf.keras.layers.ZeroPadding2D)]
    assert {x.padding for x in pads} == {((1, 1), (1, 1))}
    assert len(pads) == 5


def test_saved_model_and_custom_builder(tmp_path):
    build(tmp_path, "mlp", input_shape=[4], classes=2).save(tmp_path / "m.keras")
    assert models.build(ModelSource(ref="m.keras"), tmp_path).output_shape == (None, 2)
    (tmp_path / "mine_model.py").write_text(
        "import tensorflow as tf\n"
        "def build(width):\n"
        "    return tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(width)])\n"
        "def wrong():\n    return 'a model'\n"
    )
    source = ModelSource(ref="mine_model.py:build", args={"width": 5})
    assert models.build(source, tmp_path).output_shape == (None, 5)
    with pytest.raises(UsageError, match=r"returned str; it must return a tf.keras.Model"):
        models.build(ModelSource(ref="mine_model.py:wrong"), tmp_path)
    (tmp_path / "bad.keras").write_text("nothing")
    with pytest.raises(UsageError, match=r"bad.keras is not a saved Keras model"):
        models.build(ModelSource(ref="bad.keras"), tmp_path)


@pytest.mark.slow
@pytest.mark.full
def test_keras_3_model_is_an_error(tmp_path):
    (tmp_path / "three.py").write_text(
        "import keras\n"
        "def build():\n"
        "    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])\n"
    )
    script = (
        "from pathlib import Path\nfrom edgesparse import models\n"
        "from edgesparse.spec.pipeline import ModelSource\n"
        f"models.build(ModelSource(ref='three.py:build'), Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "returned a Keras 3 model" in done.stderr
    assert "build it with tf.keras" in done.stderr


@pytest.mark.parametrize("experts", [0, 4])
@pytest.mark.parametrize("inputs", [{"vocabulary": 50}, {"features": 6}])
def test_transformer(inputs, experts, tmp_path):
    args = {"classes": 3, "length": 16, "width": 16, "heads": 2, "window": 8, "blocks": 1}
    source = ModelSource(name="transformer", args={**args, **inputs, "experts": experts})
    model = models.build(source, tmp_path)
    shape = (2, 16) if "vocabulary" in inputs else (2, 16, 6)
    x = np.ones(shape, "int32" if "vocabulary" in inputs else "float32")
    assert model(x).shape == (2, 3)
    assert any(layer.name == "experts_1" for layer in model.layers) == bool(experts)
    # What is padding changes nothing.
    if "vocabulary" in inputs:
        x[:, 8:] = 0
        before = model(x).numpy()
        model.get_layer("embedding").embeddings.assign_add(
            np.eye(50)[0][:, None] * np.ones((1, 16))
        )
        np.testing.assert_allclose(model(x).numpy(), before, atol=1e-4)


def test_mixture_of_experts_reads_a_part_of_its_weights(tmp_path):
    args = {"input_shape": [8, 8, 1], "classes": 10, "experts": 8, "top_k": 2}
    model = models.build(ModelSource(name="moe_mlp", args=args), tmp_path)
    experts = model.get_layer("experts")
    assert experts.active_weights() < 0.3 * experts.count_params()
    assert model(np.zeros((3, 8, 8, 1), "float32")).shape == (3, 10)
