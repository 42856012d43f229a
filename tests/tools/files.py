"""Model files of kinds that people have, labels behind them, and a disk that is full."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT

# In a process of its own: TensorFlow would keep tflite-runtime out of this one.
_MAKE = """
import sys
from pathlib import Path
import edgesparse
import numpy as np
import tensorflow as tf
from edgesparse.models.mobilenet_v1 import mobilenet_v1
from edgesparse.models.mlp import mlp
from edgesparse.tflite.convert import convert
tf.keras.utils.set_random_seed(0)
models = {
    "mobilenet": mobilenet_v1((64, 64, 3), 10, alpha=0.5),
    "mlp": mlp((16, 16, 1), 10, (1024, 1024)),
}
for name, model in models.items():
    x = np.random.default_rng(0).random((8, *model.input_shape[1:])).astype(np.float32)
    for scheme in ("f32", "int8"):
        Path(sys.argv[1], f"{name}-{scheme}.tflite").write_bytes(convert(model, scheme, x))
"""


def networks(folder: Path) -> list[Path]:
    """A MobileNet and a perceptron, in f32 and int8."""
    subprocess.run([sys.executable, "-c", _MAKE, folder], check=True, capture_output=True, cwd=ROOT)
    return sorted(folder.glob("*.tflite"))


def labels() -> bytes:
    """A zip with labels.txt, as TFLite metadata's writer appends it to a file."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr(zipfile.ZipInfo("labels.txt"), "cat\ndog\n")
    return memory.getvalue()


@contextmanager
def no_room(size: int) -> Iterator[None]:
    """No file of this process can become larger, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
