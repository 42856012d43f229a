"""Shared parts: small real models, and ways to call the program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent

TINY = """
name: tiny
data: {name: digits, args: {input_shape: [8, 8, 1]}}
model: {name: mlp, args: {input_shape: [8, 8, 1], classes: 10, widths: [32]}}
train: {epochs: 1, batch_size: 64, learning_rate: 5.0e-3}
variants:
  dense-f32: {}
  sparse-f32:
    sparsify: {method: magnitude, sparsity: 0.5, pattern: block-1x4, epochs: 1}
benchmark: {rounds: 1, min_seconds: 0.05, min_runs: 5, warmup_runs: 2, warmup_seconds: 0}
"""


def run_cli(
    *arguments: str | Path, cwd: Path, timeout: float = 600, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The program as a user starts it."""
    return subprocess.run(
        [sys.executable, "-m", "edgesparse", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_cli(*arguments, cwd=tmp_path, **environment)

    return run


def require(condition: bool, reason: str) -> None:
    """Skip with a reason; in CI a missing part is a failure."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(f"missing in CI: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def sparse_dense_layer():
    """A trained-looking Keras model: 512 -> 512 -> 10 with half of the first kernel zero."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(1)
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((512,)),
            # The converter leaves out a bias of zeros.
            layers.Dense(512, "relu", bias_initializer="random_normal", name="wide"),
            layers.Dense(10, "softmax", bias_initializer="random_normal", name="classifier"),
        ]
    )
    random = np.random.default_rng(1)
    kernel = model.get_layer("wide").kernel
    kernel.assign(kernel * (random.random(kernel.shape) < 0.5))
    return model


@pytest.fixture(scope="session")
def samples() -> np.ndarray:
    return np.random.default_rng(2).random((16, 512), dtype=np.float32)


@pytest.fixture(scope="session")
def tflite_files(sparse_dense_layer, samples, tmp_path_factory) -> dict[str, Path]:
    """dense.tflite, sparse.tflite and int8.tflite of `sparse_dense_layer`."""
    from edgesparse.tflite.convert import convert

    folder = tmp_path_factory.mktemp("tflite")
    made = {
        "dense": convert(sparse_dense_layer, "f32", samples),
        "sparse": convert(sparse_dense_layer, "f32", samples, sparse=True),
        "int8": convert(sparse_dense_layer, "int8", samples),
    }
    for name, content in made.items():
        (folder / f"{name}.tflite").write_bytes(content)
    return {name: folder / f"{name}.tflite" for name in made}


_FIND_CRASH = """
import os, signal, sys
from ai_edge_litert.interpreter import Interpreter
from edgesparse.spec.errors import EdgesparseError
from edgesparse.tflite.inspect import inspect
base = open(sys.argv[1], "rb").read()
for position in range(len(base) - 3000, len(base) - 4, 7):
    content = base[:position] + b"\\xff\\xff\\xff\\x7f" + base[position + 4:]
    try:
        inspect(content)
    except EdgesparseError:
        continue
    open(sys.argv[2], "wb").write(content)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.alarm(10)
        try:
            interpreter = Interpreter(model_path=sys.argv[2])
            interpreter.allocate_tensors()
            interpreter.invoke()
        except Exception:
            pass
        os._exit(0)
    if os.waitpid(child, 0)[1] & 0x7F == signal.SIGSEGV:
        break
else:
    os.remove(sys.argv[2])
"""


@pytest.fixture(scope="session")
def crashing_model(tflite_files, tmp_path_factory) -> Path:
    """A damaged .tflite that can be read, and on which ai-edge-litert dies of SIGSEGV."""
    path = tmp_path_factory.mktemp("crash") / "crash.tflite"
    command = [sys.executable, "-c", _FIND_CRASH, str(tflite_files["sparse"]), str(path)]
    subprocess.run(command, check=True, timeout=300)
    assert path.exists(), "no damage was found that crashes the runtime"
    return path
