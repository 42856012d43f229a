"""Published latencies of real boards beside what the emulated ones say: ratios across formats.

    python -m tests.tools.calibrate [DEVICE ...]   default: pi5-emulated, pi4-emulated; minutes each

Absolute figures cannot agree, since instructions are no time; ratios may. Where those across number
formats are off by more than 30 %, tables of that device mark no best across them; see
measure/instruction_counts.py.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

import edgesparse
from edgesparse.measure.instruction_counts import CHECKED

ROOT = Path(__file__).parents[2]
WITHIN = 0.3


INCEPTIONS = [
    (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), None, (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128), None, (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
]  # fmt: skip
"""Channels of each module's branches, in the order of the paper's table; None is a pooling."""


def googlenet(size):
    """Szegedy et al. 2015, "Going Deeper with Convolutions", without what only training needs."""
    import tensorflow as tf

    layers = tf.keras.layers

    def conv(x, channels, kernel, strides=1):
        return layers.Conv2D(channels, kernel, strides, padding="same", activation="relu")(x)

    def pool(x, strides):
        return layers.MaxPooling2D(3, strides, padding="same")(x)

    i = tf.keras.Input((size, size, 3))
    x = pool(conv(i, 64, 7, 2), 2)
    x = pool(conv(conv(x, 64, 1), 192, 3), 2)
    for module in INCEPTIONS:
        if module is None:
            x = pool(x, 2)
            continue
        one, before_three, three, before_five, five, pooled = module
        x = layers.Concatenate()(
            [
                conv(x, one, 1),
                conv(conv(x, before_three, 1), three, 3),
                conv(conv(x, before_five, 1), five, 5),
                conv(pool(x, 1), pooled, 1),
            ]
        )
    x = layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(i, layers.Dense(1000, activation="softmax")(x))


def files(folder, network, size):
    """The networks in f32 and int8, of random weights: what they compute takes as long."""
    import tensorflow as tf

    from edgesparse.tflite.convert import convert

    build = {
        "googlenet": googlenet,
        "mobilenet_v1": lambda size: tf.keras.applications.MobileNet((size, size, 3), weights=None),
        "mobilenet_v2": lambda size: tf.keras.applications.MobileNetV2(
            (size, size, 3), weights=None
        ),
    }.get(network)
    if build is None:
        return []
    tf.keras.utils.set_random_seed(0)
    model = build(size)
    x = np.random.default_rng(0).normal(size=(4, size, size, 3)).astype(np.float32)
    found = []
    for scheme in ("f32", "int8"):
        path = folder / f"{network}-{scheme}.tflite"
        path.write_bytes(convert(model, scheme, x))
        found.append(path)
    return found


def main(devices):
    published = yaml.safe_load((ROOT / "devices" / "published.yaml").read_text())
    for device in devices:
        for entry in published:
            known = entry["latency_ms"]
            if "int8" not in known:
                continue
            with tempfile.TemporaryDirectory() as place:
                made = files(Path(place), entry["network"], entry["input"])
                if not made:
                    print(f"{entry['network']}: not built here")
                    continue
                results = edgesparse.bench(made, device, quick=True, project=ROOT)
            if entry["cpu"] not in results.devices[0].cpu:
                continue
            there = known["f32"] / known["int8"]
            for runtime in sorted({row.runtime.name for row in results.rows}):
                rows = {r.variant: r for r in results.rows if r.runtime.name == runtime}
                f32, int8 = (rows[path.stem].latency_ms for path in made)
                if f32 is None or int8 is None:
                    continue
                here = f32.p50 / int8.p50
                near = abs(here / there - 1) <= WITHIN
                said = "within 30 %" if near else "OFF"
                print(
                    f"{device}, {runtime}, {entry['network']}: f32 {f32.p50:.1f} and int8 "
                    f"{int8.p50:.1f} ms of instructions, {here:.2f}x; published "
                    f"{known['f32']} and {known['int8']} ms, {there:.2f}x: {said}"
                )
    known = "; ".join(f"{runtime} on a {core}" for core, runtime in CHECKED)
    print(f"formats are compared, since that was checked, of {known}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["pi5-emulated", "pi4-emulated"])
