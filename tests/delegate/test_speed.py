"""The delegate's speed, as ratios to dense int8 in XNNPACK on this machine; run by `make bench`."""

import json
import statistics
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.tools.int8_model import Zeros
from tests.tools.sparse_networks import NETWORKS

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

LEAST = {
    "mobilenet_v1": (3.5, 4.4),
    "mobilenet_v2": (2.5, 3.0),
    "resnet8": (1.9, 2.3),
    # Half of its time is in the first convolution and in depthwise ones.
    "ds_cnn": (1.0, 1.0),
}
"""By 80 and 90 % zeros; with AVX-512 VNNI or AVX2, without AMX."""
ROUNDS = 30

RACE = """
import json, sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from edgesparse import delegate
paths = json.loads(sys.argv[1])
interpreters = {}
for name, path in paths.items():
    ours = [delegate.load()] if name != "dense" else None
    interpreter = Interpreter(path, num_threads=1, experimental_delegates=ours)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    values = np.random.default_rng(0).integers(-128, 128, source["shape"]).astype(np.int8)
    interpreter.set_tensor(source["index"], values)
    interpreters[name] = interpreter
times = {name: [] for name in paths}
for _ in range(int(sys.argv[2])):
    for name, interpreter in interpreters.items():
        # The caches hold this one's weights, as they do where a network runs alone.
        for _ in range(3):
            interpreter.invoke()
        begun = time.process_time_ns()
        for _ in range(20):
            interpreter.invoke()
        times[name].append((time.process_time_ns() - begun) / 20_000)
print(json.dumps(times))
"""


@pytest.mark.parametrize("network", NETWORKS)
def test_zeros_pay_against_dense_int8(network, tmp_path):
    paths = {}
    for name, share in (("dense", 0.0), ("80 %", 0.8), ("90 %", 0.9)):
        path = tmp_path / f"{share}.tflite"
        path.write_bytes(NETWORKS[network](Zeros(share)))
        paths[name] = str(path)
    command = [sys.executable, "-c", RACE, json.dumps(paths), str(ROUNDS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    times = json.loads(done.stdout)
    for name, least in zip(("80 %", "90 %"), LEAST[network], strict=True):
        # Rounds are paired: what else runs here slows both.
        ratios = [a / b for a, b in zip(times["dense"], times[name], strict=True)]
        ratio, microseconds = statistics.median(ratios), statistics.median(times[name])
        print(
            f"\n{network}, {name} zeros in 2x4: {microseconds:.0f} us, {ratio:.2f}x dense int8 "
            f"with XNNPACK (at least {least})"
        )
        assert ratio >= least
