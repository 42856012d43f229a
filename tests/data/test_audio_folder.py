import math

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import data
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Source


@pytest.fixture
def folder(tmp_path):
    for hertz, name in ((400, "low"), (3000, "high")):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for number in range(20):
            time = np.arange(8000 - 100 * number) / 8000
            sound = 0.5 * np.sin(2 * math.pi * hertz * time + number).astype(np.float32)
            content = tf.audio.encode_wav(sound[:, None], 8000).numpy()
            (tmp_path / "sounds" / name / f"{number}.wav").write_bytes(content)
    return tmp_path


def load(folder, **args):
    defaults = {"path": "sounds", "sample_rate": 8000, **args}
    return data.load(Source(name="audio-folder", args=defaults), folder)


def test_log_mel_spectrogram(folder):
    dataset = load(folder, mels=20)
    assert dataset.class_names == ("high", "low")
    x, y = data.arrays(dataset.train, 99)
    frames = 1 + (8000 - 256) // 128
    assert x["x"].shape == (28, frames, 20, 1)
    # The loudest band is where the tone is.
    loudest = x["x"][:, 5, :, 0].argmax(axis=1)
    assert loudest[y["y"] == 0].min() > loudest[y["y"] == 1].max()


def test_errors(folder):
    dataset = load(folder, sample_rate=16_000)
    with pytest.raises(tf.errors.InvalidArgumentError, match="its sample rate is not 16000 Hz"):
        data.arrays(dataset.train, 1)
    with pytest.raises(UsageError, match="shorter than a window"):
        load(folder, seconds=0.01)
