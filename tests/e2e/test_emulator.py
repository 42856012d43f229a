"""Emulated Raspberry Pis as devices: a group of them, one that stays up, one whose host is killed,
and pipelines that are measured there."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from edgesparse.methods.masks import magnitude_mask
from edgesparse.models.mobilenet_v1 import mobilenet_v1
from edgesparse.tflite.convert import convert
from tests.devices.ondevice.test_detached import await_end
from tests.e2e.conftest import board_up, clone, machines
from tests.tflite.runtimes.clusters import sparse_form

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def own(emulator_tools, tmp_path_factory):
    """A project whose boards are nobody else's."""
    return clone(tmp_path_factory.mktemp("emulator") / "project")


def test_a_group_is_measured_in_one_table(own):
    """On a Pi 4, tflite-runtime runs the same sparse file dense: its core has no half precision."""
    model = mobilenet_v1([32, 32, 3], 10, alpha=0.5, downsample=2)
    for i in range(1, 14):
        kernel = model.get_layer(f"conv_pw_{i}").kernel
        kernel.assign(kernel * magnitude_mask(kernel.numpy(), 0.89, "unstructured"))
    dense = convert(model, "f32", np.zeros((0, 1), np.float32))
    (own.folder / "dense.tflite").write_bytes(dense)
    (own.folder / "sparse.tflite").write_bytes(sparse_form(dense))
    done = own.shell(
        ".venv/bin/edgesparse bench dense.tflite sparse.tflite --device emulated", 1800
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ratios = {
        (r.device, r.runtime.name): r.speedup.ratio
        for r in own.results_of(done).rows
        if r.variant == "sparse"
    }
    assert ratios["pi5-emulated", "tflite-runtime"] >= 2.0
    assert 0.9 <= ratios["pi4-emulated", "tflite-runtime"] <= 1.1
    # The newer runtime skips zeros on both.
    assert ratios["pi4-emulated", "ai-edge-litert"] >= 2.0
    assert " to pi4-emulated gains: " in " ".join(done.stdout.split())


def test_a_host_that_is_killed_leaves_no_machine(own):
    environment = {**os.environ, "HOME": str(own.folder / "home")}
    command = [sys.executable, "-m", "edgesparse", "device", "check", "pi5-emulated"]
    with subprocess.Popen(
        command, cwd=own.folder, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if "set up pi5-emulated ..." in line:
                break
        while not (found := machines(own)):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    await_end(found)


def test_a_machine_that_is_up_stays_up_and_keeps_its_files(own):

    def edgesparse(*arguments):
        done = own.shell(".venv/bin/edgesparse " + " ".join(arguments))
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        up = edgesparse("emulator up pi4-emulated")
        assert "pi4-emulated: up, cortex-a72" in up
        assert "pi4-emulated: up" in edgesparse("emulator status")
        assert "already installed in /home/pi/.cache/edgesparse/venv" in edgesparse(
            "device setup pi4-emulated"
        )
        checked = edgesparse("device check pi4-emulated")
        assert checked.count("a trial model ran") == 2
        assert len(machines(own)) == 1
        # What waits there waits as long as we do: no time-out ends early.
        login = up.partition("log in with: ")[2].strip()
        begun = time.monotonic()
        done = own.shell(f"{login} 'cat /proc/uptime; sleep 2; cat /proc/uptime'")
        first, last = (float(line.split()[0]) for line in done.stdout.splitlines())
        assert 2 <= round(last - first, 2) < 3 * (time.monotonic() - begun)
    finally:
        edgesparse("emulator down pi4-emulated")
    assert not machines(own)


@pytest.fixture(scope="module")
def pi5(own):
    """A board that stays up, after the tests of boards that do not."""
    with board_up(own, "pi5-emulated"):
        yield own


@pytest.mark.parametrize(
    ("name", "variants"),
    [("pairs", ("dense-f32", "sparse-int8")), ("words", ("dense-f32", "rows-f32"))],
)
def test_shipped_pipelines_run_there(pi5, shared_store, name, variants):
    """Two inputs and two outputs; and rows of a table, of which a text reads a few. Their models
    are those of test_shipped.py."""
    words = [f"pipelines/{name}.yaml", "--device pi5-emulated --quick"]
    words += [f"--variant {variant}" for variant in variants]
    done = pi5.shell(" ".join([".venv/bin/edgesparse deploy", *words]), 900)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    results = pi5.results_of(done)
    assert len(results.rows) == len(variants) * 2
    assert {row.status for row in results.rows} == {"ok"}
    assert {row.clock for row in results.rows} == {"instructions"}
    if name == "words":
        rows = [row for row in results.rows if row.variant == "rows-f32"]
        assert all(row.speedup.ratio > 5 for row in rows)
