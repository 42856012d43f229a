import json
from types import SimpleNamespace

import pytest

from edgesparse.commands.fleet import probes
from edgesparse.devices.agent.probe import CellResult, NetworkSpeedups
from edgesparse.graph.workspace import Workspace
from edgesparse.measure.rows import RuntimeInfo
from edgesparse.tflite.runtimes.compatibility import Cell, Verdict

CELL = Cell("FULLY_CONNECTED", "int8", "densify")


@pytest.fixture
def target():
    return SimpleNamespace(
        device=SimpleNamespace(
            name="pi",
            cpu_delegate="xnnpack",
            loads_edgesparse=False,
            delegate="xnnpack",
            delegate_used="xnnpack",
        ),
        host=SimpleNamespace(
            machine="aarch64", cpu="Cortex-A76", cpu_flags=frozenset({"fp", "asimd", "asimddp"})
        ),
        runtimes=(RuntimeInfo(name="ai-edge-litert", version="2.1.6"),),
        transport=None,
    )


@pytest.fixture
def workspace(tmp_path, target, monkeypatch):
    """After a probe that found what the table does not say."""
    found = [CellResult("ai-edge-litert", CELL, Verdict(True, 1.5))]
    monkeypatch.setattr(probes, "probe_cells", lambda *_: found)
    monkeypatch.setattr(
        probes, "probe_networks", lambda *_: {"ai-edge-litert": NetworkSpeedups(1.0, 1.9)}
    )
    done = probes.probe(target, Workspace(tmp_path), lambda *_: None)
    assert list(done.trials) == found
    assert probes.mismatches(target, found) == found
    return Workspace(tmp_path)


def test_what_was_found_counts(workspace, target):
    profile = probes.profiles(target, workspace)["ai-edge-litert"]
    assert profile.verdict(CELL) == Verdict(True, 1.5)
    assert profile.machine.features == {"fp", "asimd", "asimddp"}
    assert not profile.sparse_path.exists
    assert "in the device's probe" in profile.sparse_path.why
    assert probes.profiles(target, None)["ai-edge-litert"].sparse_path.exists
    assert not probes.profiles(target, None)["ai-edge-litert"].verdict(CELL).runs
    assert profile.half_precision.exists
    assert not probes.profiles(target, None)["ai-edge-litert"].half_precision.exists


def test_channels_are_left_as_the_device_wants(target):
    def multiple():
        return probes.profiles(target, None)["ai-edge-litert"].channel_multiple.number

    assert multiple() == 16
    target.host.cpu_flags = frozenset({"fp", "asimd"})
    assert multiple() == 8
    target.device.delegate = "edgesparse"
    assert multiple() == 4
    target.device.delegate_used = "edgetpu"
    assert multiple() == 8


@pytest.mark.parametrize("change", ["version", "cpu", "damage", "kind"])
def test_but_only_for_that_device_and_runtime(workspace, target, change):
    path = workspace.folder / "probes" / "pi.json"
    record = json.loads(path.read_text())
    if change == "version":
        record["runtimes"]["ai-edge-litert"]["version"] = "2.0.3"
    elif change == "cpu":
        record["cpu"] = "Cortex-A72"
    path.write_text({"damage": path.read_text()[:50], "kind": "[]"}.get(change, json.dumps(record)))
    assert not probes.profiles(target, workspace)["ai-edge-litert"].verdict(CELL).runs


def test_the_delegate_takes_as_long_as_the_probe_measured(workspace, target):
    target.device.loads_edgesparse = True
    path = workspace.folder / "probes" / "pi.json"
    record = json.loads(path.read_text())
    table = probes.profiles(target, workspace)["ai-edge-litert"].cpu
    record["runtimes"]["ai-edge-litert"]["delegate_factor"] = 1.5
    path.write_text(json.dumps(record))
    cpu = probes.profiles(target, workspace)["ai-edge-litert"].cpu
    assert cpu.delegate["block1"] == pytest.approx(1.5 * table.delegate["block1"])
    assert cpu.dense == table.dense
    target.device.loads_edgesparse = False
    assert probes.profiles(target, workspace)["ai-edge-litert"].cpu is None
