"""A dataset that is larger than memory: it does not exist, and is made as it is read."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(900)]
MINE = """
import tensorflow as tf
from edgesparse.data import from_datasets

L = tf.keras.layers


def sample(i):
    label = i % 2
    return tf.fill((512, 512, 1), tf.cast(label, tf.float32) * 0.5 + 0.1), label


def load():
    def part(count):
        return tf.data.Dataset.range(count).map(sample)
    return from_datasets("huge", part(4_000), part(100), part(100), ["low", "high"])


def build():
    x = image = tf.keras.Input((512, 512, 1))
    x = L.Flatten()(L.AveragePooling2D(64)(x))
    return tf.keras.Model(image, L.Dense(2, "softmax")(L.Dense(16, "relu")(x)))
"""
PIPELINE = """
name: huge
data: {ref: "mine.py:load"}
model: {ref: "mine.py:build"}
train: {epochs: 1, batch_size: 32}
variants: {dense-f32: {}}
"""
MAX_BYTES = 2_000_000_000
MEASURE = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "edgesparse", "run", "huge.yaml"])
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(done.returncode)
"""


def test_four_gigabytes_are_trained_on_within_two(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "huge.yaml").write_text(PIPELINE)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=880,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # The largest process of all: the one that trains.
    assert int(re.search(r"peak (\d+)", done.stdout).group(1)) < MAX_BYTES
