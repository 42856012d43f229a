"""What each kind of sparsity gains on each runtime and CPU: a table in zeros.md.

    python -m tests.tools.mechanisms [DEVICE ...]    measure, and write the table

Untrained networks with the zeros that a mechanism leaves, each measured beside its dense twin.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import edgesparse  # Keras 2, before TensorFlow
from edgesparse.docs import PAGES
from edgesparse.layers import Experts, SparseAttention, SparseDense, TopK
from edgesparse.measure.rows import Row
from edgesparse.methods.masks import magnitude_mask
from edgesparse.models.mobilenet_v1 import mobilenet_v1
from edgesparse.spec.pipeline import Benchmark
from edgesparse.tflite.convert import convert
from tests.conftest import ROOT

L = tf.keras.layers
PAGE = PAGES / "explanation" / "zeros.md"
HEAD, END = "<!-- made by `make matrix` -->", "<!-- end -->"
DEVICE = """
name: {name}
connect: {{emulator: {{cpu: {cpu}, memory_mib: 1024, clock: instructions}}}}
workdir: ~/.cache/edgesparse
runtimes: [tflite-runtime, ai-edge-litert]
"""
CPUS = {"a76": "cortex-a76", "a72": "cortex-a72", "a53": "cortex-a53"}
TITLES = {"local": "x86-64", "a76": "Cortex-A76", "a72": "Cortex-A72", "a53": "Cortex-A53"}
RUNTIMES = ("tflite-runtime", "ai-edge-litert")
ROUNDS = Benchmark(rounds=5, min_seconds=2.0, min_runs=60, warmup_runs=3, warmup_seconds=0.1)
EXACT = Benchmark(rounds=1, min_seconds=0.3, min_runs=4, warmup_runs=1, warmup_seconds=0.0)
SAME = 0.03
"""A gain of less is none."""


def model(shape: Any, *layers: Any, dtype: str = "float32") -> tf.keras.Model:
    tf.keras.utils.set_random_seed(1)
    x = inputs = tf.keras.Input(shape, dtype=dtype)
    for layer in layers:
        x = layer(x)
    return tf.keras.Model(inputs, x)


class Apart(L.Layer):
    """Whole numbers [batch, n], each further from the one before."""

    def __init__(self, step: int, **more: Any) -> None:
        super().__init__(**more)
        self.step = step

    def call(self, x: Any) -> Any:
        return x + self.step * tf.range(x.shape[-1])


def words(sparse: bool) -> tf.keras.Model:
    """Word counts: 128 of 20,000."""
    tf.keras.utils.set_random_seed(1)
    if not sparse:
        return model((20_000,), L.Dense(32, "relu"), L.Dense(2))
    ids, counts = tf.keras.Input((128,), dtype="int32"), tf.keras.Input((128,))
    # Measured with zeros as ids: so that they are different rows all the same.
    x = SparseDense(32, 20_000, "relu")([Apart(20_000 // 128)(ids), counts])
    return tf.keras.Model([ids, counts], L.Dense(2)(x))


def perceptron(pattern: str | None) -> tf.keras.Model:
    found = model((1024,), *[L.Dense(1024, "relu") for _ in range(3)], L.Dense(10))
    for layer in found.layers[1:-1] if pattern else ():
        layer.kernel.assign(layer.kernel * magnitude_mask(layer.kernel.numpy(), 0.9, pattern))
    return found


def images(zeros: bool, width: float = 1.0) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(1)
    found = mobilenet_v1([96, 96, 3], 10, alpha=width, downsample=5)
    for layer in found.layers if zeros else ():
        if isinstance(layer, L.Conv2D) and layer.kernel_size == (1, 1):
            kept = magnitude_mask(layer.kernel.numpy(), 0.9, "unstructured")
            layer.kernel.assign(layer.kernel * kept)
    return found


Pair = tuple[Callable[[], tf.keras.Model], Callable[[], tf.keras.Model], str, bool]
MECHANISMS: dict[str, Pair] = {
    "zeros in 1x1 convolutions, 90 %, f32": (
        lambda: images(False), lambda: images(True), "f32", True),
    "half of the channels, f32": (
        lambda: images(False), lambda: images(False, 0.5), "f32", False),
    "blocks of 4 in fully connected layers, 90 %, f32": (
        lambda: perceptron(None), lambda: perceptron("block-1x4"), "f32", True),
    "blocks of 16 in fully connected layers, 90 %, int8": (
        lambda: perceptron(None), lambda: perceptron("block-1x16"), "int8", True),
    "sparse inputs: 128 of 20,000 words": (
        lambda: words(False), lambda: words(True), "f32", False),
    "experts: 2 of 16": (
        lambda: model((128,), Experts(128, 256, 16, 2, compute="all")),
        lambda: model((128,), Experts(128, 256, 16, 2)), "f32", False),
    "local attention: window 64, length 2,048": (
        lambda: model((2048, 32), SparseAttention(1, 32, 0)),
        lambda: model((2048, 32), SparseAttention(1, 32, 64)), "f32", False),
    "sparse activations: 100 of 1,024": (
        lambda: model((128,), L.Dense(1024, "relu"), L.Dense(1024)),
        lambda: model((128,), L.Dense(1024, "relu"), TopK(100), SparseDense(1024, 1024)),
        "f32", False),
}  # fmt: skip


def content(built: tf.keras.Model, scheme: str, sparse: bool) -> bytes:
    random = np.random.default_rng(0)
    samples = [
        random.random((8, *t.shape[1:])).astype(t.dtype.as_numpy_dtype) for t in built.inputs
    ]
    return convert(built, scheme, samples, one_scale=sparse)  # type: ignore[arg-type]


def models(folder: Path) -> None:
    """The files NUMBER-dense.tflite and NUMBER-sparse.tflite of each mechanism; zeros still stored
    densely."""
    for number, (dense, sparse, scheme, stored) in enumerate(MECHANISMS.values()):
        (folder / f"{number}-dense.tflite").write_bytes(content(dense(), scheme, False))
        (folder / f"{number}-sparse.tflite").write_bytes(content(sparse(), scheme, stored))


def gains(device: str, folder: Path) -> dict[tuple[int, str], str]:
    """By mechanism and runtime, how many times as fast as the dense one."""
    place: Any = "local"
    if device != "local":
        place = folder / f"{device}.yaml"
        place.write_text(DEVICE.format(name=f"matrix-{device}", cpu=CPUS[device]))
    given = []
    for number, (*_, stored) in enumerate(MECHANISMS.values()):
        given += [folder / f"{number}-dense.tflite"]
        sparse = folder / f"{number}-sparse.tflite"
        for runtime in RUNTIMES if stored else ():
            # As that runtime likes it best on that machine.
            kept = folder / f"{number}-{device}-{runtime}.tflite"
            edgesparse.encode(sparse, kept, place, runtime=runtime, project=ROOT)
            given.append(kept)
        given += [] if stored else [sparse]
    settings = ROUNDS if device == "local" else EXACT
    found = edgesparse.bench(given, place, benchmark=settings, project=ROOT)
    rows = {(row.variant, row.runtime.name): row for row in found.rows}
    told = {}
    for number, (*_, stored) in enumerate(MECHANISMS.values()):
        for runtime in RUNTIMES:
            name = f"{number}-{device}-{runtime}" if stored else f"{number}-sparse"
            told[number, runtime] = gain(rows[f"{number}-dense", runtime], rows[name, runtime])
    return told


def gain(dense: Row, sparse: Row) -> str:
    if dense.latency_ms is None or sparse.latency_ms is None:
        return "does not run"
    ratio = dense.latency_ms.p50 / sparse.latency_ms.p50
    apart = (
        dense.latency_ms.ci95[0] > sparse.latency_ms.ci95[1]
        or dense.latency_ms.ci95[1] < sparse.latency_ms.ci95[0]
    )
    if not apart or abs(ratio - 1) < SAME:
        return "none"
    text = f"{ratio:.2g}x" if ratio >= 2 else f"{ratio:.2f}x"
    return f"**{text}**" if ratio > 1 else text


def table(devices: list[str]) -> list[str]:
    with tempfile.TemporaryDirectory() as place:
        models(Path(place))
        known = {device: gains(device, Path(place)) for device in devices}
    head = ["mechanism", "runtime", *(TITLES[one] for one in devices)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for number, name in enumerate(MECHANISMS):
        for runtime in RUNTIMES:
            figures = [known[device][number, runtime] for device in devices]
            lines.append(f"| {name} | {runtime} | " + " | ".join(figures) + " |")
    return lines


def main(devices: list[str]) -> None:
    lines = table(devices or list(TITLES))
    print("\n".join(lines))
    made = f"{HEAD}\n" + "\n".join(lines) + f"\n{END}"
    pattern = re.escape(HEAD) + r".*?" + re.escape(END)
    PAGE.write_text(re.sub(pattern, lambda _: made, PAGE.read_text(), flags=re.S))


if __name__ == "__main__":
    main(sys.argv[1:])
