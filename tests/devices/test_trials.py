"""The table of compatibility against the runtimes themselves: no surprises."""

import pytest

from edgesparse.devices.local import LocalTransport
from edgesparse.devices.measure import host_info
from edgesparse.devices.provision import provision
from edgesparse.devices.trials import try_cells
from edgesparse.spec.device import Local
from edgesparse.spec.load import parse_device
from edgesparse.tflite.compatibility import KERNELS, Machine, Profile, cells
from tests.conftest import require

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def differences(trials, versions):
    odd = []
    for trial in trials:
        profile = Profile(Machine(trial.runtime, versions[trial.runtime], "x86_64"))
        if profile.verdict(trial.cell).runs != trial.verdict.runs:
            odd.append((trial, profile.verdict(trial.cell)))
    return odd


def test_the_runtimes_here_do_what_the_table_says(tmp_path):
    transport = LocalTransport("here", Local(), str(tmp_path))
    versions = dict(host_info(transport).runtimes)
    for name in ("tflite-runtime", "ai-edge-litert"):
        require(name in versions, name)
    told = []
    trials = try_cells(transport, list(versions), "xnnpack", lambda share, _: told.append(share))
    assert len(trials) == len(versions) * len(cells())
    assert differences(trials, versions) == []
    for trial in trials:
        kernel = trial.cell.form in KERNELS and trial.verdict.runs
        assert (trial.verdict.cost is not None) == kernel
    assert told == sorted(told)


def test_an_older_runtime_too(server, tmp_path):
    """ai-edge-litert 1.4.0, on a device where it is installed for this."""
    text = server.device_yaml().replace("runtime: system", "runtime: venv")
    text = text.replace("[ai-edge-litert]", "[{name: ai-edge-litert, version: 1.4.0}]")
    board = server.connect(tmp_path / "work")
    done = provision(board, parse_device(text).spec)
    assert done.versions == {"ai-edge-litert": "1.4.0"}
    trials = try_cells(board, ["ai-edge-litert"], "xnnpack", timed=False)
    board.close()
    assert differences(trials, {"ai-edge-litert": "1.4.0"}) == []
