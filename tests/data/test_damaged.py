"""Errors name the file that TensorFlow cannot read."""

import os
import wave
from itertools import chain

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from edgesparse import data
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Source


def images(folder):
    for name in "ab":
        (folder / "images" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.full((8, 8, 3), number, np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{number}.png")
    (folder / "images" / "a" / "5.png").write_bytes(b"no image")
    return {"name": "image-folder", "args": {"path": "images", "input_shape": [8, 8, 3]}}


def recordings(folder):
    for name in "ab":
        (folder / "sounds" / name).mkdir(parents=True)
        for number in range(12):
            with wave.open(str(folder / "sounds" / name / f"{number}.wav"), "wb") as file:
                rate = 8_000 if (name, number) == ("b", 4) else 16_000
                file.setparams((1, 2, rate, 0, "NONE", ""))
                file.writeframes(bytes(16_000))
    return {"name": "audio-folder", "args": {"path": "sounds"}}


def records(folder):
    features = {
        "x": tf.train.Feature(float_list=tf.train.FloatList(value=[1.0] * 4)),
        "y": tf.train.Feature(int64_list=tf.train.Int64List(value=[1])),
    }
    record = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    for name in ("train", "validation", "test"):
        with tf.io.TFRecordWriter(str(folder / f"{name}.rec")) as file:
            for _ in range(10):
                file.write(record)
    file = folder / "validation.rec"
    file.write_bytes(file.read_bytes()[:-7])
    shapes = {"x": {"shape": [4], "dtype": "float32"}, "y": {"shape": [], "dtype": "int64"}}
    args = {name: f"{name}.rec" for name in ("train", "validation", "test")}
    return {"name": "tfrecord", "args": {**args, "features": shapes, "target": "y"}}


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (images, "images/a/5.png: cannot be read: Unknown image file format"),
        (recordings, "sounds/b/4.wav: cannot be read: its sample rate is not 16000 Hz"),
        (records, "validation.rec: cannot be read: truncated record"),
    ],
)
def test_damaged_file_is_named(tmp_path, write, message):
    source = Source(**write(tmp_path))
    if source.name == "tfrecord":  # Its samples are counted when it is loaded.
        with pytest.raises(UsageError, match=message):
            data.load(source, tmp_path)
        return
    dataset = data.load(source, tmp_path)
    splits = (dataset.train, dataset.validation, dataset.test)
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(chain.from_iterable(split.samples for split in splits))
    assert dataset.find_damaged().startswith(message)
    (tmp_path / message.partition(":")[0]).unlink()
    assert data.load(source, tmp_path).find_damaged() is None


@pytest.mark.slow
def test_damaged_file_is_named_before_training(cli, tmp_path):
    source = images(tmp_path)
    os.mkfifo(tmp_path / "images" / "a" / "waits.png")  # Has no writer: reading blocks.
    model = {"name": "mlp", "args": {"input_shape": [8, 8, 3], "classes": 2}}
    text = f"name: p\ndata: {source}\nmodel: {model}\nvariants: {{dense: {{}}}}\n"
    (tmp_path / "p.yaml").write_text(text)
    done = cli("plan", "p.yaml")
    assert "images/a/5.png: cannot be read" in " ".join(done.stdout.split()), done.stderr
