"""The table of compatibility against the runtimes themselves: no surprises."""

import json

import pytest

from edgesparse.devices.agent.probe import probe_cells
from edgesparse.devices.setup.runtimes import provision
from edgesparse.spec.reading.load import parse_device
from edgesparse.tflite.runtimes.compatibility import KERNELS, Machine, Profile, cells
from tests.conftest import run_cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def differences(trials, versions):
    """Trials (runtime, cell, runs) whose outcome is not the table's."""
    odd = []
    for runtime, cell, runs in trials:
        verdict = Profile(Machine(runtime, versions[runtime], "x86_64")).verdict(cell)
        if verdict.runs != runs:
            odd.append((runtime, cell, verdict))
    return odd


@pytest.mark.full
def test_the_runtimes_here_do_what_the_table_says(tmp_path):
    """As a user asks for it; what is found is kept."""
    done = run_cli("device", "probe", "local", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0 of 92 results differ from the built-in compatibility table" in done.stdout
    assert "local | tflite-runtime 2.14.0\n  CONV_2D            f32 " in done.stdout
    # Not on x86. (On the emulated Pi: see tests/e2e/test_clusters.py.)
    assert done.stdout.count("zeros in 1x1 convolutions: not skipped, ") == 2
    assert max(map(len, done.stdout.splitlines())) <= 100
    kept = json.loads((tmp_path / ".edgesparse" / "probes" / "local.json").read_text())
    by_name = {cell.name: cell for cell in cells()}
    versions = {name: result["version"] for name, result in kept["runtimes"].items()}
    assert set(versions) == {"tflite-runtime", "ai-edge-litert"}
    trials = []
    for runtime, result in kept["runtimes"].items():
        assert result["cells"].keys() == by_name.keys()
        for name, verdict in result["cells"].items():
            cell = by_name[name]
            trials.append((runtime, cell, verdict["runs"]))
            assert bool(verdict["cost"]) == (verdict["runs"] and cell.form in KERNELS)
    assert differences(trials, versions) == []


@pytest.mark.full
def test_an_older_runtime_too(server, tmp_path):
    """ai-edge-litert 1.4.0, on a device where it is installed for this."""
    text = server.device_yaml().replace("install: system", "install: venv")
    text = text.replace("[ai-edge-litert]", "[{name: ai-edge-litert, version: 1.4.0}]")
    board = server.connect(tmp_path / "work")
    done = provision(board, parse_device(text).spec)
    assert done.versions == {"ai-edge-litert": "1.4.0"}
    result = probe_cells(board, ["ai-edge-litert"], "xnnpack", timed=False)
    board.close()
    trials = [(trial.runtime, trial.cell, trial.verdict.runs) for trial in result]
    assert len(trials) == len(cells())
    assert differences(trials, {"ai-edge-litert": "1.4.0"}) == []
