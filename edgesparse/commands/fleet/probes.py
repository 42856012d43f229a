"""Results of `device probe`, kept in the project: they override the compatibility table."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgesparse.commands.fleet.cost_calibration import delegate_factors, loads_delegate
from edgesparse.commands.fleet.target import Target
from edgesparse.delegate.choice import ChannelMultiple, channel_multiple
from edgesparse.delegate.cost import cpu_of
from edgesparse.devices.agent.probe import CellResult, NetworkSpeedups, probe_cells, probe_networks
from edgesparse.devices.transport.interface import Progress
from edgesparse.graph.workspace import Workspace
from edgesparse.spec.safe.files import replace_json
from edgesparse.tflite.runtimes.compatibility import Cell, Machine, Profile, Verdict, cells


@dataclass(frozen=True)
class ProbeResult:
    """Results of a probe: each cell of the compatibility table, and by runtime the speed-ups of
    networks and how many times its predicted time edgesparse's delegate takes."""

    trials: tuple[CellResult, ...]
    gains: Mapping[str, NetworkSpeedups]
    factors: Mapping[str, float] = field(default_factory=dict)


def probe(target: Target, workspace: Workspace, progress: Progress) -> ProbeResult:
    """Probe every cell of the compatibility table on a device and save the results.

    TensorFlow's output while models are created goes to a log beside them.

    Raises:
        DeviceError: the device failed.
    """
    with _captured_output(_path(workspace, target).with_suffix(".log")):
        result = _measure(target, progress)
    replace_json(_path(workspace, target), _record(target, result))
    return result


def _measure(target: Target, progress: Progress) -> ProbeResult:
    names = [runtime.name for runtime in target.runtimes]
    delegate = target.device.cpu_delegate
    trials = probe_cells(
        target.transport, names, delegate, lambda share, text: progress(0.85 * share, text)
    )
    gains = probe_networks(
        target.transport, names, delegate, lambda share, text: progress(0.85 + 0.1 * share, text)
    )
    factors = delegate_factors(target, lambda share, text: progress(0.95 + 0.05 * share, text))
    return ProbeResult(tuple(trials), gains, factors)


def profiles(target: Target, workspace: Workspace | None) -> dict[str, Profile]:
    """Profile of each runtime on a device, by name: probed results, else the table's."""
    multiple, probed = _channel_multiple(target), _read(workspace, target)
    profiles_by_name = {}
    for runtime in target.runtimes:
        machine = Machine(runtime.name, runtime.version, target.host.machine, target.host.cpu_flags)
        results = probed.get((runtime.name, runtime.version), ({}, None, None, None))
        ours = loads_delegate(target, runtime.name, runtime.version)
        profiles_by_name[runtime.name] = Profile(
            machine, *results, delegate=ours, channel_multiple=multiple
        )
    return profiles_by_name


def _channel_multiple(target: Target) -> ChannelMultiple:
    on_cpu = target.device.delegate_used != "edgetpu"
    cpu = cpu_of(target.host.machine, target.host.cpu_flags) if on_cpu else None
    return channel_multiple(cpu, every_file=target.device.delegate == "edgesparse")


def mismatches(target: Target, trials: Sequence[CellResult]) -> list[CellResult]:
    """Select the results that differ from the built-in table."""
    table = profiles(target, None)
    return [t for t in trials if table[t.runtime].verdict(t.cell).runs != t.verdict.runs]


def _path(workspace: Workspace, target: Target) -> Path:
    return workspace.folder / "probes" / f"{target.device.name}.json"


def _record(target: Target, result: ProbeResult) -> dict[str, Any]:
    runtimes: dict[str, Any] = {
        runtime.name: {
            "version": runtime.version,
            "path_gain": result.gains[runtime.name].zeros,
            "half_gain": result.gains[runtime.name].half,
            "delegate_factor": result.factors.get(runtime.name),
            "cells": {},
        }
        for runtime in target.runtimes
    }
    for trial in result.trials:
        verdict = trial.verdict
        runtimes[trial.runtime]["cells"][trial.cell.name] = {
            "runs": verdict.runs,
            "cost": verdict.cost,
            "why": verdict.why,
        }
    return {"machine": target.host.machine, "cpu": target.host.cpu, "runtimes": runtimes}


def _read(
    workspace: Workspace | None, target: Target
) -> dict[tuple[str, str], tuple[dict[Cell, Verdict], float | None, float | None, float | None]]:
    """Read saved results by runtime and version; none where the device is a different board."""
    if workspace is None:
        return {}
    try:
        record = json.loads(_path(workspace, target).read_text())
        # A name that now leads to another board must not inherit its results.
        if (record["machine"], record["cpu"]) != (target.host.machine, target.host.cpu):
            return {}
        cells_by_name = {cell.name: cell for cell in cells()}
        return {
            (name, entry["version"]): (
                {
                    cells_by_name[cell]: Verdict(bool(v["runs"]), v["cost"], str(v["why"]))
                    for cell, v in entry["cells"].items()
                    if cell in cells_by_name
                },
                _gain(entry, "path_gain"),
                _gain(entry, "half_gain"),
                _gain(entry, "delegate_factor"),
            )
            for name, entry in record["runtimes"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _gain(record: Mapping[str, Any], name: str) -> float | None:
    return None if record.get(name) is None else float(record[name])


@contextmanager
def _captured_output(log: Path) -> Iterator[None]:
    """Redirect this process's output to `log`, TensorFlow's C++ output included."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, target):
            os.close(descriptor)
