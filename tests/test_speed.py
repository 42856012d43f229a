"""Speed, as ratios measured on this machine; run by `make bench`, not by the tests."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, suppress

import pytest

import edgesparse
from edgesparse.graph.workspace import Workspace
from edgesparse.spec.pipeline import Benchmark
from edgesparse.tflite.format.minimal_model import tiny_model
from tests.conftest import ROOT, run_cli
from tests.tools.fake_runtime import make_runtime
from tests.tools.files import networks
from tests.tools.sshd import ssh_server

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


@pytest.mark.parametrize(
    ("variant", "least"),
    [("channels-int8", 1.7), ("sparse-int8-block", 3.5), ("channels-sparse-int8", 5.5)],
)
def test_fewer_channels_and_blocks_of_zeros_pay_with_int8(project, variant, least):
    deploy_seconds(project, "pipelines/digits.yaml")
    rows = {(r.runtime.name, r.variant): r for r in Workspace(project).results().rows}
    speedup = rows["ai-edge-litert", variant].speedup_vs_dense
    low, high = speedup.ci95
    print(f"\n{variant} against {speedup.baseline}, ai-edge-litert: {low:.2f}x to {high:.2f}x")
    assert speedup.ratio >= least


# Long, since here the devices' own connections, checks and Pythons take this machine's cores, too:
# nearly two minutes of fifty boards on two cores, which fifty boards would share among themselves.
LOAD_SECONDS, INFERENCE_SECONDS = 900.0, 0.1
DEVICES = 50
_FLEET = """
import sys
from pathlib import Path
import edgesparse
from edgesparse.spec.pipeline import Benchmark
load = Benchmark(
    rounds=2, min_runs=2, min_seconds=float(sys.argv[1]), warmup_runs=1, warmup_seconds=0
)
found = edgesparse.bench("tiny.tflite", sys.argv[2:], benchmark=load)
assert not found.failed, found
"""


def fleet_run(folder, names, load_seconds):
    """(seconds, peak MB, most open files) of measuring on these devices at once."""
    start, files = time.perf_counter(), 0
    command = [sys.executable, "-c", _FLEET, str(load_seconds), *names]
    process = subprocess.Popen(command, cwd=folder)
    while True:
        with suppress(OSError):
            files = max(files, len(os.listdir(f"/proc/{process.pid}/fd")))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.2)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - start, usage.ru_maxrss / 1000, files


def test_fifty_devices_take_as_long_as_one(tmp_path):
    """A load of fixed duration, without CPU: ideally all devices end when one alone would."""
    python = make_runtime(tmp_path / "runtime", seconds=INFERENCE_SECONDS)
    (tmp_path / "devices").mkdir()
    (tmp_path / "tiny.tflite").write_bytes(tiny_model())
    names = [f"d{i}" for i in range(DEVICES)]
    with ExitStack() as stack:
        for name in names:
            server = stack.enter_context(ssh_server(tmp_path / name))
            text = server.device_yaml(name, python=str(python))
            (tmp_path / "devices" / f"{name}.yaml").write_text(text)
        beside, memory_mb, _ = fleet_run(tmp_path, names[:1], 2.0)
        total, fleet_memory_mb, files = fleet_run(tmp_path, names, LOAD_SECONDS)
    alone = LOAD_SECONDS + beside - 2.0
    ratio = total / alone
    print(
        f"\n{DEVICES} devices: {total:.0f} s, {ratio:.2f} x one alone, {alone:.0f} s (at most 1.15)"
    )
    print(f"memory here: {memory_mb:.0f} MB with 1 device, {fleet_memory_mb:.0f} MB with {DEVICES}")
    print(f"at most {files} open files here")
    assert ratio <= 1.15
    assert files < 10 * DEVICES
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


_LOOP = """
import statistics, sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter
model = Interpreter(sys.argv[1], num_threads=1)
model.allocate_tensors()
(given,) = model.get_input_details()
values = np.random.default_rng(0).random(given["shape"]).astype(np.float32)
if given["dtype"] != np.float32:
    values = (values * 255 - 128).astype(given["dtype"])
model.set_tensor(given["index"], values)
until = time.perf_counter() + 0.5
while time.perf_counter() < until:
    model.invoke()
times = []
until = time.perf_counter() + 3
while time.perf_counter() < until:
    begun = time.perf_counter_ns()
    model.invoke()
    times.append(time.perf_counter_ns() - begun)
print(statistics.median(times) / 1e6)
"""


def test_figures_are_those_of_a_minimal_loop(tmp_path):
    """Four files, measured in turns by edgesparse and by the runtime alone, three times."""
    files = networks(tmp_path)
    shutil.copytree(ROOT / "devices", tmp_path / "devices")
    ours, theirs = {}, {}
    settings = Benchmark(rounds=1, min_seconds=3, warmup_seconds=0.5)
    for _ in range(3):
        for file in files:
            done = subprocess.run(
                [sys.executable, "-c", _LOOP, file], check=True, capture_output=True, text=True
            )
            theirs.setdefault(file.stem, []).append(float(done.stdout))
            found = edgesparse.bench(file, "local", benchmark=settings, project=tmp_path)
            (row,) = [row for row in found.rows if row.runtime.name == "ai-edge-litert"]
            ours.setdefault(file.stem, []).append(row.latency_ms.p50)
    for name in ours:
        ratio = statistics.median(ours[name]) / statistics.median(theirs[name])
        print(
            f"\n{name}: p50 {statistics.median(ours[name]):.4f} ms, {ratio:.3f} of a plain loop's"
        )
        assert 0.97 <= ratio <= 1.03


_PLAIN = """
import os
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np, tensorflow as tf, tensorflow_model_optimization as tfmot
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

tf.keras.utils.set_random_seed(7)
x, y = load_digits(return_X_y=True)
x = tf.image.resize((x / 16).reshape(-1, 8, 8, 1), (16, 16)).numpy()
x, test_x, y, test_y = train_test_split(x, y, test_size=0.2, stratify=y, random_state=7)
x, valid_x, y, valid_y = train_test_split(x, y, test_size=0.1, stratify=y, random_state=7)
L = tf.keras.layers
model = tf.keras.Sequential([L.Input((16, 16, 1)), L.Flatten()]
    + [L.Dense(1024, "relu") for _ in range(4)] + [L.Dense(10, "softmax")])
loss = "sparse_categorical_crossentropy"
model.compile("adam", loss, ["accuracy"])
model.fit(x, y, batch_size=32, epochs=10, validation_data=(valid_x, valid_y), verbose=0)
steps = -(-len(x) // 32) * 12
schedule = tfmot.sparsity.keras.PolynomialDecay(0, 0.9, 0, steps // 2, frequency=40)
pruned = tfmot.sparsity.keras.prune_low_magnitude(model, schedule, block_size=(1, 4))
pruned.compile("adam", loss, ["accuracy"])
pruned.fit(x, y, batch_size=32, epochs=12, validation_data=(valid_x, valid_y), verbose=0,
    callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
model = tfmot.sparsity.keras.strip_pruning(pruned)
content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
print(len(content))
"""


def test_a_pipeline_takes_hardly_longer_than_a_script(project):
    """The same network, trained and pruned for as many epochs, by Keras and its toolkit alone."""
    script = project / "plain.py"
    script.write_text(_PLAIN)
    pipeline = project / "pipelines" / "digits-mlp.yaml"
    text = pipeline.read_text().partition("  block-1x16-int8:")[0]
    text = text.replace("  dense-int8:\n    quantize: int8\n", "")
    (project / "pipelines" / "same.yaml").write_text(text)
    plain, ours = [], []
    for number in range(2):
        begun = time.perf_counter()
        subprocess.run([sys.executable, script], check=True, capture_output=True)
        plain.append(time.perf_counter() - begun)
        shutil.rmtree(project / ".edgesparse", ignore_errors=True)
        begun = time.perf_counter()
        done = run_cli("run", "pipelines/same.yaml", cwd=project, timeout=2000)
        ours.append(time.perf_counter() - begun)
        assert done.returncode == 0, done.stderr
        print(f"\n{number}: plain script {plain[-1]:.1f} s, pipeline {ours[-1]:.1f} s")
    ratio = min(ours) / min(plain)
    print(f"pipeline / plain script: {ratio:.2f} (at most 1.05)")
    assert ratio <= 1.05
