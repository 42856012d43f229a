"""Published latencies of real boards beside what the emulated ones say: ratios across formats.

    python -m tests.calibrate [DEVICE ...]      default: pi5-emulated and pi4-emulated; minutes each

Absolute figures cannot agree, since instructions are no time; ratios may. Where those across number
formats are off by more than 30 %, tables of that device mark no best across them; see
bench/clock.py.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

import edgesparse
from edgesparse.bench.clock import CHECKED

ROOT = Path(__file__).parent.parent
WITHIN = 0.3


def files(folder, network, size):
    """The networks in f32 and int8, of random weights: what they compute takes as long."""
    import tensorflow as tf

    from edgesparse.tflite.convert import convert

    build = {
        "mobilenet_v1": tf.keras.applications.MobileNet,
        "mobilenet_v2": tf.keras.applications.MobileNetV2,
    }.get(network)
    if build is None:
        return []
    tf.keras.utils.set_random_seed(0)
    model = build(input_shape=(size, size, 3), weights=None)
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
    print(f"checked, so that formats are compared there: {', '.join(CHECKED)}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["pi5-emulated", "pi4-emulated"])
