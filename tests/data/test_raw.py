"""Preprocessing of raw files on a device equals that of training data."""

import csv
import math
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from edgesparse import data
from edgesparse.data import raw, transforms
from edgesparse.spec.pipeline import Source

R = np.random.default_rng(0)


def load(base, name, **args):
    return data.load(Source(name=name, args=args), base)


@pytest.mark.parametrize("shape", [(12, 10, 3), (40, 30, 1), (24, 20, 3)])
def test_images(tmp_path, shape):
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            pixels = R.integers(0, 256, (24, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    dataset = load(tmp_path, "image-folder", path="pictures", input_shape=list(shape))
    files = sorted((tmp_path / "pictures").rglob("*.png"))
    (x,) = data.arrays(dataset.train, 3)[0].values()
    transform = dataset.transforms["x"]
    for values in x:
        inputs = [raw.read(str(file), transform, (1, *shape))[0] for file in files]
        # TensorFlow and Pillow weigh colours for grey a little differently.
        nearest = min(np.abs(x - values).max() for x in inputs)
        assert nearest < (0.01 if shape[2] == 1 else 1e-5)


def test_image_mean_deviation_and_order(tmp_path):
    pixels = R.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    transform = transforms.image((4, 5, 3), 1.0, [10, 20, 30], [2, 4, 8], "bgr")
    result = raw.read(str(tmp_path / "a.png"), transform, (1, 4, 5, 3))[0]
    expected = (pixels[..., ::-1] - np.array([10, 20, 30])) / [2, 4, 8]
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_rows_of_a_table(tmp_path):
    with open(tmp_path / "t.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["age", "town", "y"])
        rows.writerows([20 + i, "ABC"[i % 3], f"{i % 2}x"] for i in range(40))
    dataset = load(tmp_path, "csv", path="t.csv", target="y")
    (x,) = data.arrays(dataset.train, 5)[0].values()
    rows = [[20 + i, "ABC"[i % 3]] for i in range(40)]
    for values in x:
        matches = 0
        for age, town in rows:
            # More columns than the model reads, in another order.
            (tmp_path / "one.csv").write_text(f"town,more,age\n{town},7,{age}\n")
            result = raw.read(str(tmp_path / "one.csv"), dataset.transforms["x"], (1, 4))
            matches += np.allclose(result[0], values, atol=1e-5)
        assert matches == 1


def test_recordings(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for number in range(10):
            time = np.arange(7000 + 200 * number) / 8000
            sound = 0.4 * np.sin(2 * math.pi * (300 + 100 * number) * time) + 0.1 * R.random(
                len(time)
            )
            content = tf.audio.encode_wav(sound.astype(np.float32)[:, None], 8000).numpy()
            (tmp_path / "sounds" / name / f"{number}.wav").write_bytes(content)
    dataset = load(tmp_path, "audio-folder", path="sounds", sample_rate=8000, mels=20)
    (x,) = data.arrays(dataset.train, 4)[0].values()
    files = sorted((tmp_path / "sounds").rglob("*.wav"))
    for values in x:
        inputs = [raw.read(str(f), dataset.transforms["x"], (1, *values.shape)) for f in files]
        assert min(np.abs(x[0] - values).max() for x in inputs) < 2e-3


def test_raw_numbers(tmp_path):
    x = R.integers(0, 255, (40, 6), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(40) % 2)
    dataset = load(tmp_path, "npz", path="d.npz", scale=255)
    np.save(tmp_path / "one.npy", x[0])
    result = raw.read(str(tmp_path / "one.npy"), dataset.transforms["x"], (1, 6))
    np.testing.assert_allclose(result[0], x[0] / 255, rtol=1e-6)


def test_errors(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="declares no preprocessing"):
        raw.read(str(tmp_path / "a.png"), None, (1, 4, 4, 3))
    np.save(tmp_path / "a.npy", np.zeros(5))
    with pytest.raises(ValueError, match=r"has shape \(5,\), but the model needs \(4, 4\)"):
        raw.read(str(tmp_path / "a.npy"), None, (1, 4, 4))


def test_it_needs_numpy_only():
    code = (
        "import runpy, sys; sys.modules['PIL'] = None; "
        f"module = runpy.run_path({raw.__file__!r}); assert 'read' in module"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
