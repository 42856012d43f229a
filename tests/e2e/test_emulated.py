"""The emulated Raspberry Pis: real aarch64 Linux, its clock counting instructions."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.devices.ondevice.test_detached import await_end
from tests.e2e.conftest import VARIANTS_THERE

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(2400)]


def test_a_deploy_boots_measures_releases_and_shuts_down(emulated):
    project, first, _, _ = emulated
    results = first.results
    assert "clock: INSTRUCTIONS, not time" in first.done.stdout
    assert {row.status for row in results.rows} == {"ok"}
    assert {row.clock for row in results.rows} == {"instructions"}
    assert len(results.rows) == len(VARIANTS_THERE) * 2  # Each on two runtimes.
    (device,) = results.devices
    assert (device.machine, "Cortex-A76" in device.cpu) == ("aarch64", True)
    (release,) = results.releases
    assert release.previous is None
    assert release.try_it is None
    assert "gone with the emulated device" in " ".join(first.done.stdout.split())
    assert "set up pi5-emulated: " in first.done.stderr
    assert all(len(line) <= 100 for line in first.done.stdout.splitlines())
    assert not machines(project)


def machines(project):
    """QEMU processes of this project's home."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"qemu-system") and str(project.folder).encode() in command:
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("runtime", ["tflite-runtime", "ai-edge-litert"])
def test_the_same_run_gives_the_same_figures(emulated, runtime):
    _, _, first, second = emulated
    before, after = first.rows(runtime), second.rows(runtime)
    assert set(before) == set(after)
    for variant, row in before.items():
        assert after[variant].latency_ms.p50 == pytest.approx(row.latency_ms.p50, rel=1e-3)


@pytest.mark.parametrize(("runtime", "least"), [("tflite-runtime", 2.0), ("ai-edge-litert", 2.5)])
def test_zeros_in_convolutions_pay_on_a_pi_5(emulated, runtime, least):
    _, first, _, _ = emulated
    row = first.rows(runtime)["sparse-f32"]
    assert row.model.sparsity >= 0.85
    assert row.model.storage == "sparse"
    assert row.speedup.baseline == "dense-f32"
    assert row.speedup.ci95[0] >= least
    assert row.accuracy.drop <= 0.02


@pytest.mark.parametrize("runtime", ["tflite-runtime", "ai-edge-litert"])
def test_removed_channels_pay_with_int8(emulated, runtime):
    _, first, _, _ = emulated
    row = first.rows(runtime)["channels-int8"]
    assert row.zeros_speedup.baseline == "dense-int8"
    assert row.zeros_speedup.ratio >= 1.7


@pytest.mark.parametrize("runtime", ["tflite-runtime", "ai-edge-litert"])
def test_half_precision_is_computed_there(emulated, runtime):
    _, first, _, _ = emulated
    row = first.rows(runtime)["half-f16"]
    assert row.speedup.ratio >= 1.8
    assert row.zeros_speedup.baseline == "dense-f32"
    assert row.half_precision is True
    assert row.agreement == 1.0


def test_the_best_is_twice_as_fast_as_any_dense_int8(emulated):
    _, first, _, _ = emulated
    rows = first.rows("ai-edge-litert")
    dense, best = rows["dense-int8"], rows["channels-int8"]
    assert dense.latency_ms.p50 / best.latency_ms.p50 >= 2.0
    assert best.accuracy.drop - dense.accuracy.drop <= 0.01


def test_blocks_of_zeros_in_fully_connected_layers_pay_there(emulated):
    _, _, mlp, _ = emulated
    rows = mlp.rows("tflite-runtime")
    dense, sparse = rows["dense-int8"], rows["block-1x16-int8"]
    assert sparse.zeros_speedup.baseline == "dense-int8"
    assert sparse.zeros_speedup.ratio >= 4.0
    assert dense.latency_ms.p50 / sparse.latency_ms.p50 >= 4.0


def test_a_group_is_measured_in_one_table(emulated):
    """On a Pi 4, tflite-runtime runs the same sparse file dense: its core has no half precision."""
    project, first, _, _ = emulated
    store = project.folder / ".edgesparse" / "store"
    row = first.rows("tflite-runtime")
    for variant, storage in (("dense-f32", "dense"), ("sparse-f32", "sparse")):
        (path,) = [
            p for p in store.glob(f"*/{storage}.tflite")
            if p.stat().st_size == row[variant].model.bytes
        ][:1]  # fmt: skip
        shutil.copy(path, project.folder / f"digits-{variant}.tflite")
    done = project.shell(
        ".venv/bin/edgesparse bench digits-dense-f32.tflite digits-sparse-f32.tflite "
        "--device emulated",
        1800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = project.results_of(done)
    ratios = {
        (r.device, r.runtime.name): r.speedup.ratio
        for r in found.rows
        if r.variant == "digits-sparse-f32"
    }
    assert ratios["pi5-emulated", "tflite-runtime"] >= 2.0
    assert 0.9 <= ratios["pi4-emulated", "tflite-runtime"] <= 1.1
    # The newer runtime skips zeros on both.
    assert ratios["pi4-emulated", "ai-edge-litert"] >= 2.0
    assert "best on pi4-emulated" in done.stdout


def test_a_host_that_is_killed_leaves_no_machine(emulated):
    project = emulated[0]
    environment = {**os.environ, "HOME": str(project.folder / "home")}
    command = [sys.executable, "-m", "edgesparse", "device", "check", "pi5-emulated"]
    with subprocess.Popen(
        command, cwd=project.folder, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if "set up pi5-emulated ..." in line:
                break
        while not (found := machines(project)):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    await_end(found)


def test_a_machine_that_is_up_stays_up_and_keeps_its_files(emulated):
    project = emulated[0]

    def edgesparse(*arguments):
        done = project.shell(".venv/bin/edgesparse " + " ".join(arguments))
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        up = edgesparse("emulator up pi4-emulated")
        assert "pi4-emulated: up, cortex-a72" in up
        assert "pi4-emulated: up" in edgesparse("emulator status")
        assert "in /home/pi/.cache/edgesparse/venv already" in edgesparse(
            "device setup pi4-emulated"
        )
        checked = edgesparse("device check pi4-emulated")
        assert checked.count("a trial model ran") == 2
        assert len(machines(project)) == 1
        # What waits there waits as long as we do: no time-out ends early.
        login = up.partition("log in with: ")[2].strip()
        begun = time.monotonic()
        done = project.shell(f"{login} 'cat /proc/uptime; sleep 2; cat /proc/uptime'")
        first, last = (float(line.split()[0]) for line in done.stdout.splitlines())
        assert 2 <= last - first < 3 * (time.monotonic() - begun)
    finally:
        edgesparse("emulator down pi4-emulated")
    assert not machines(project)


@pytest.mark.parametrize(
    ("name", "variants"),
    [("pairs", ("dense-f32", "sparse-int8")), ("words", ("dense-f32", "rows-f32"))],
)
def test_shipped_pipelines_run_there(emulated, shared_store, name, variants):
    """Two inputs and two outputs; and rows of a table, of which a text reads a few. Their models
    are those of test_shipped.py."""
    project = emulated[0]
    words = [f"pipelines/{name}.yaml", "--device pi5-emulated --quick"]
    words += [f"--variant {variant}" for variant in variants]
    done = project.shell(" ".join([".venv/bin/edgesparse deploy", *words]), 900)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    results = project.results_of(done)
    assert len(results.rows) == len(variants) * 2
    assert {row.status for row in results.rows} == {"ok"}
    assert {row.clock for row in results.rows} == {"instructions"}
    if name == "words":
        rows = [row for row in results.rows if row.variant == "rows-f32"]
        assert all(row.speedup.ratio > 5 for row in rows)
