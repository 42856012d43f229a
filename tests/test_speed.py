"""Speed, as ratios measured on this machine; run by `make bench`, not by the tests."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from edgesparse.graph.workspace import Workspace
from edgesparse.tflite.format.tiny import tiny_model
from tests.conftest import ROOT, run_cli
from tests.fake_runtime import make_runtime
from tests.sshd import ssh_server

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3000)]


@pytest.fixture
def project(tmp_path):
    for name in ("pipelines", "devices"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def seconds(*command):
    times = []
    for _ in range(20):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def test_help_is_quick():
    ratio = seconds(sys.executable, "-m", "edgesparse", "--help") / seconds(
        sys.executable, "-c", "import click"
    )
    print(f"\nedgesparse --help / import click: {ratio:.2f} (at most 1.5)")
    assert ratio <= 1.5


def deploy_seconds(project, pipeline, *options):
    """(everything, the benchmark) in seconds; stderr says how long the benchmark took."""
    start = time.perf_counter()
    done = run_cli("deploy", pipeline, *options, cwd=project, timeout=2000)
    total = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    last = [line for line in done.stderr.splitlines() if line.startswith("benchmark on local: ")]
    return total, float(last[-1].split()[-2])


def test_a_second_deploy_costs_only_its_benchmark(project):
    first, _ = deploy_seconds(project, "pipelines/digits.yaml")
    second, measuring = deploy_seconds(project, "pipelines/digits.yaml")
    share = (second - measuring) / first
    print(f"\nsecond deploy without its benchmark / first deploy: {share:.2%} (under 2 %)")
    assert share < 0.02


def test_block_sparse_kernels_pay(project):
    deploy_seconds(project, "pipelines/digits-mlp.yaml")
    rows = {(r.runtime.name, r.variant): r for r in Workspace(project).results().rows}
    block = rows["ai-edge-litert", "block-1x4-f32"]
    low, high = block.speedup.ci95
    print(f"\nblock-1x4-f32 against dense-f32, ai-edge-litert: {low:.2f}x to {high:.2f}x")
    assert low >= 1.3


def test_removed_channels_pay_with_int8(project):
    variants = ("--variant", "dense-int8", "--variant", "channels-int8")
    deploy_seconds(project, "pipelines/digits.yaml", *variants)
    rows = {(r.runtime.name, r.variant): r for r in Workspace(project).results().rows}
    speedup = rows["ai-edge-litert", "channels-int8"].zeros_speedup
    low, high = speedup.ci95
    print(f"\nchannels-int8 against {speedup.baseline}, ai-edge-litert: {low:.2f}x to {high:.2f}x")
    assert speedup.ratio >= 1.7


LOAD_SECONDS = 120.0
DEVICES = 50
_FLEET = f"""
import sys
from pathlib import Path
import edgesparse
from edgesparse.spec.pipeline import Benchmark
load = Benchmark(
    rounds=2, min_runs=2, min_seconds={LOAD_SECONDS}, warmup_runs=1, warmup_seconds=0
)
found = edgesparse.bench("tiny.tflite", sys.argv[1:], benchmark=load)
assert not found.failed, found
"""


def fleet_run(folder, names):
    """(seconds, peak MB) of measuring on these devices at once."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", _FLEET, *names], cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - start, usage.ru_maxrss / 1000


def test_fifty_devices_take_as_long_as_one(tmp_path):
    """A load of fixed duration, without CPU: ideally all devices end when one alone would."""
    python = make_runtime(tmp_path / "runtime")
    (tmp_path / "devices").mkdir()
    (tmp_path / "tiny.tflite").write_bytes(tiny_model())
    names = [f"d{i}" for i in range(DEVICES)]
    with ExitStack() as stack:
        for name in names:
            server = stack.enter_context(ssh_server(tmp_path / name))
            text = server.device_yaml(name, python=str(python))
            (tmp_path / "devices" / f"{name}.yaml").write_text(text)
        _, memory_mb = fleet_run(tmp_path, names[:1])
        total, fleet_memory_mb = fleet_run(tmp_path, names)
    ratio = total / LOAD_SECONDS
    print(f"\n{DEVICES} devices: {ratio:.2f} x the load's own duration (at most 1.15)")
    print(f"memory here: {memory_mb:.0f} MB with 1 device, {fleet_memory_mb:.0f} MB with {DEVICES}")
    assert ratio <= 1.15
    assert fleet_memory_mb < memory_mb + 100


_ENCODES = """
import sys, time
from pathlib import Path
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from edgesparse.tflite.runtimes.storage import store

def peak_mb():
    # Not getrusage, which knows what the parent took before.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").open())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6

content = Path(sys.argv[1]).read_bytes()
before, start = peak_mb(), time.perf_counter()
stored, _ = store(content, Profile(Machine("ai-edge-litert", "2.1.6", "x86_64")), "auto")
print(time.perf_counter() - start, peak_mb() - before, len(content), len(stored))
"""


def test_a_large_model_is_encoded_quickly_and_in_little_memory(tmp_path):
    """100 MB of f32 weights, 90 % zeros."""
    import numpy as np
    import tensorflow as tf

    from edgesparse.tflite.convert import convert

    width = 5120
    inputs = tf.keras.Input((width,))
    dense = tf.keras.layers.Dense(width)
    model = tf.keras.Model(inputs, dense(inputs))
    kept = np.random.default_rng(0).random((width, width)) < 0.1
    dense.kernel.assign(dense.kernel * kept)
    path = tmp_path / "large.tflite"
    path.write_bytes(convert(model, "f32", np.zeros((1, width), np.float32)))
    done = subprocess.run(
        [sys.executable, "-c", _ENCODES, str(path)], check=True, capture_output=True, text=True
    )
    duration, extra_mb, before, after = map(float, done.stdout.split())
    print(
        f"\n{before / 1e6:.0f} MB encoded to {after / 1e6:.1f} MB in {duration:.1f} s (at most 10) "
        f"with {extra_mb:.0f} MB of memory beyond the file's (at most 400)"
    )
    assert duration < 10
    assert extra_mb < 400
