"""An emulated Raspberry Pi 5 that is up: what is measured on it, released to it and asked of it.
test_emulated.py has the long runs."""

import json

import pytest

from tests.conftest import TINY
from tests.tflite.runtimes.clusters import RECIPES, both_forms

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
RUNTIMES = ("tflite-runtime", "ai-edge-litert")


def shell(project, command, timeout=600):
    done = project.shell(f".venv/bin/edgesparse {command}", timeout)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return done


@pytest.fixture(scope="module")
def pi(project, emulator_tools):
    """The project in which it is up; the image is built where there is none yet."""
    try:
        # Building one takes two minutes, or as long as Debian's packages take to come.
        done = shell(project, "emulator up pi5-emulated", 1200)
        assert "pi5-emulated: up, cortex-a76" in done.stdout
        yield project
    finally:
        shell(project, "emulator down pi5-emulated")


def test_zeros_pay_where_the_sparse_path_is_taken_and_nowhere_else(pi):
    """Of two networks one takes it, and in the other a single layer is in its way."""
    files = []
    for name in ("taken", "stem-same"):
        for form, content in zip(("dense", "sparse"), both_forms(RECIPES[name]), strict=False):
            files.append(f"{name}-{form}.tflite")
            (pi.folder / files[-1]).write_bytes(content)
    files.append("int8.tflite")
    (pi.folder / files[-1]).write_bytes(both_forms(RECIPES["int8"])[0])
    done = shell(pi, f"bench {' '.join(files)} --device pi5-emulated --quick --json")
    results = json.loads(done.stdout)
    assert {row["clock"] for row in results["rows"]} == {"instructions"}
    assert {row["status"] for row in results["rows"]} == {"ok"}
    times = {
        (row["runtime"]["name"], row["variant"]): row["latency_ms"]["p50"]
        for row in results["rows"]
    }
    assert len(times) == len(RUNTIMES) * len(files)
    for runtime in RUNTIMES:
        taken, same = (
            times[runtime, f"{name}-dense"] / times[runtime, f"{name}-sparse"]
            for name in ("taken", "stem-same")
        )
        assert taken > 1.5, runtime
        assert 0.98 < same < 1.02, runtime


def test_a_deploy_measures_and_releases(pi, shared_store):
    (pi.folder / "tiny.yaml").write_text(TINY)
    done = shell(pi, "deploy tiny.yaml --device pi5-emulated --jobs 1")
    results = pi.results_of(done)
    assert "clock: INSTRUCTIONS, not time" in done.stdout
    assert {row.status for row in results.rows} == {"ok"}
    assert {(row.runtime.name, row.variant) for row in results.rows} == {
        (runtime, variant) for runtime in RUNTIMES for variant in ("dense-f32", "sparse-f32")
    }
    assert {row.agreement for row in results.rows} == {1.0}
    (device,) = results.devices
    assert (device.machine, "Cortex-A76" in device.cpu) == ("aarch64", True)
    (release,) = results.releases
    assert release.previous is None
    assert "current" in shell(pi, "device releases pi5-emulated tiny").stdout


def test_a_check_says_that_both_runtimes_work(pi):
    assert shell(pi, "device check pi5-emulated").stdout.count("a trial model ran") == 2
