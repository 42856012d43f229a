"""Pipelines that are drafted for a user's own model and data, and run."""

import numpy as np
import pytest
import yaml
from PIL import Image

from edgesparse.commands.drafts.draft import draft
from edgesparse.commands.init import write_project
from edgesparse.spec.errors import UsageError
from edgesparse.spec.reading.load import load_device, load_pipeline

pytestmark = pytest.mark.slow
RANDOM = np.random.default_rng(0)
SCRIPT = """
import tensorflow as tf

def build_model():
    return tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(3, "softmax")])
"""


@pytest.fixture
def images(tmp_path):
    """Images of two classes, dark and light."""
    for name, low in (("dark", 0), ("light", 128)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(20):
            pixels = RANDOM.integers(low, low + 128, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def brightness(scale):
    """A Keras model that tells dark from light images, whose pixels are multiplied by `scale`."""
    import tensorflow as tf

    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 3)),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(2, "softmax"),
        ]
    )
    step = np.ones((192, 1), np.float32) / 192 * 0.1
    middle = 12.8 * scale
    model.layers[-1].set_weights(
        [np.hstack([-step, step]), np.array([middle, -middle], np.float32)]
    )
    return model


@pytest.mark.parametrize(
    ("suffix", "scale", "args"),
    [
        (".keras", 1 / 255, {}),
        pytest.param(".h5", 1.0, {"scale": 1.0}, marks=pytest.mark.full),
    ],
)
def test_images_are_scaled_as_the_model_is_right(cli, images, tmp_path, suffix, scale, args):
    brightness(scale).save(tmp_path / f"Mine 1{suffix}")
    done = cli(
        "init", "--model", f"Mine 1{suffix}", "--data", "images", "--device", "pi@board.local"
    )
    assert done.returncode == 0, done.stderr
    path = tmp_path / "pipelines" / "mine-1.yaml"
    spec = load_pipeline(path).spec
    assert spec.data.args == {"path": "../images", "input_shape": [8, 8, 3], **args}
    assert spec.train.epochs == 0
    board = load_device(tmp_path / "devices" / "board.yaml").spec
    assert (board.connect.ssh.user, board.connect.ssh.host) == ("pi", "board.local")
    assert "2 classes, the model's outputs in this order: dark, light" in done.stdout
    assert "trained: 100% right on up to 200 test samples" in done.stdout
    assert done.stdout.endswith("deploy pipelines/mine-1.yaml --device board\n")
    checked = cli("validate", "pipelines/mine-1.yaml", "devices/board.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.full
def test_a_drafted_pipeline_runs(cli, images, tmp_path):
    brightness(1 / 255).save(tmp_path / "mine.keras")
    assert cli("init", "--model", "mine.keras", "--data", "images").returncode == 0
    ran = cli("run", "pipelines/mine.yaml", "--variant", "dense-int8")
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_a_script_a_table_and_arrays(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    rows = ["a,b,c,d,kind", *(f"{i},{i * 2},{-i},1,{'xyz'[i % 3]}" for i in range(60))]
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    drafted = draft(tmp_path, str(tmp_path / "train.py"), tmp_path / "rows.csv")
    content = yaml.safe_load(drafted.contents["pipelines/train.yaml"])
    assert content["model"] == {"ref": "../train.py:build_model"}
    assert content["data"] == {"name": "csv", "args": {"path": "../rows.csv", "target": "kind"}}
    assert content["train"]["epochs"] > 0
    assert "target: column 'kind', the last; --target names another" in drafted.assumptions
    write_project(tmp_path, draft=drafted)
    load_pipeline(tmp_path / "pipelines" / "train.yaml")
    x, y = RANDOM.random((60, 4), np.float32), np.arange(60) % 3
    np.savez(tmp_path / "arrays.npz", x=x, y=y)
    drafted = draft(tmp_path, f"{tmp_path}/train.py:build_model", tmp_path / "arrays.npz")
    assert yaml.safe_load(drafted.contents["pipelines/train.yaml"])["data"]["name"] == "npz"


def test_a_regression_is_scored_by_r2(tmp_path):
    import tensorflow as tf

    model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])
    model.layers[0].set_weights([np.array([[1.0], [2.0]]), np.array([0.5])])
    model.save(tmp_path / "line.keras")
    rows = [f"{a},{b},{a + 2 * b + 0.5}" for a, b in RANDOM.random((50, 2))]
    (tmp_path / "line.csv").write_text("\n".join(["a,b,y", *rows]))
    drafted = draft(tmp_path, str(tmp_path / "line.keras"), tmp_path / "line.csv")
    data = yaml.safe_load(drafted.contents["pipelines/line.yaml"])["data"]
    assert data["args"]["standardize"] is False
    assert any(
        line.startswith("scale: columns as they are (R2 1.00") for line in drafted.assumptions
    )


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("m.tflite", "x.npz", "edgesparse compress .*m.tflite --data .*x.npz"),
        ("m.pt2", "x.npz", r"\.pt2 files need no pipeline; type 'edgesparse compress .*m\.pt2 "),
        ("m.onnx", "x.npz", r"or 'edgesparse bench .*m\.onnx'"),
        ("net.py:make", "x.npy", r"a PyTorch network needs no .*net\.py:make --weights w\.pt"),
        ("script.py", "x.npz", r"has no function that returns its model.*\n    def build\(\):"),
        ("absent.keras", "x.npz", "no such file"),
        ("notes.txt", "x.npz", "is not a saved Keras model"),
        ("train.py", "x.npy", "for a trained model type: edgesparse compress MODEL --data .*x.npy"),
    ],
)
def test_other_files_name_what_to_type(tmp_path, model, data, message):
    (tmp_path / "net.py").write_text("from torch import nn\ndef make(): ...\n")
    for name in ("m.tflite", "m.pt2", "m.onnx", "script.py", "notes.txt", "x.npy"):
        (tmp_path / name).write_text("")
    (tmp_path / "train.py").write_text(SCRIPT)
    np.savez(tmp_path / "x.npz", x=np.zeros((9, 4)), y=np.zeros(9))
    with pytest.raises(UsageError, match=f"(?s){message}"):
        draft(tmp_path, str(tmp_path / model), tmp_path / data)


def test_a_model_that_does_not_fit_its_data_is_an_error(images, tmp_path):
    (images / "third").mkdir()
    for number in range(20):
        Image.new("RGB", (8, 8)).save(images / "third" / f"{number}.png")
    brightness(1.0).save(tmp_path / "m.keras")
    with pytest.raises(UsageError, match=r"the model outputs \[2\], but the data has 3 classes"):
        draft(tmp_path, str(tmp_path / "m.keras"), images)
