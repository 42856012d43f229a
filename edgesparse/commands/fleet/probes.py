"""What `device probe` found, kept in the project and put before the table of compatibility."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesparse.commands.fleet.connect import Target
from edgesparse.devices.agent.probe import CellResult, NetworkSpeedups, probe_cells, probe_networks
from edgesparse.devices.transport.interface import Progress
from edgesparse.graph.workspace import Workspace
from edgesparse.spec.safe.files import replace_json
from edgesparse.tflite.runtimes.compatibility import Cell, Machine, Profile, Verdict, cells


@dataclass(frozen=True)
class Found:
    """What a probe found: each cell, and by runtime what networks gain."""

    trials: tuple[CellResult, ...]
    gains: Mapping[str, NetworkSpeedups]


def probe(target: Target, workspace: Workspace, progress: Progress) -> Found:
    """Try everything on a device and keep what was found. Raises DeviceError.

    What TensorFlow prints while it makes the models goes to a log beside it.
    """
    with _captured_output(_path(workspace, target).with_suffix(".log")):
        found = _tried(target, progress)
    replace_json(_path(workspace, target), _record(target, found))
    return found


def _tried(target: Target, progress: Progress) -> Found:
    names = [runtime.name for runtime in target.runtimes]
    delegate = target.device.cpu_delegate
    trials = probe_cells(
        target.transport, names, delegate, lambda share, text: progress(0.85 * share, text)
    )
    gains = probe_networks(
        target.transport, names, delegate, lambda share, text: progress(0.85 + 0.15 * share, text)
    )
    return Found(tuple(trials), gains)


def profiles(target: Target, workspace: Workspace | None) -> dict[str, Profile]:
    """What each runtime, by its name, does with sparse storage on a device."""
    features = frozenset((target.host.features or "").split())
    known = _read(workspace, target)
    found = {}
    for runtime in target.runtimes:
        machine = Machine(runtime.name, runtime.version, target.host.machine, features)
        own = known.get((runtime.name, runtime.version), ({}, None, None))
        found[runtime.name] = Profile(machine, *own)
    return found


def surprises(target: Target, trials: Sequence[CellResult]) -> list[CellResult]:
    """Trials whose outcome is not the table's."""
    table = profiles(target, None)
    return [t for t in trials if table[t.runtime].verdict(t.cell).runs != t.verdict.runs]


def _path(workspace: Workspace, target: Target) -> Path:
    return workspace.folder / "probes" / f"{target.device.name}.json"


def _record(target: Target, found: Found) -> dict[str, Any]:
    runtimes: dict[str, Any] = {
        runtime.name: {
            "version": runtime.version,
            "path_gain": found.gains[runtime.name].zeros,
            "half_gain": found.gains[runtime.name].half,
            "cells": {},
        }
        for runtime in target.runtimes
    }
    for trial in found.trials:
        verdict = trial.verdict
        runtimes[trial.runtime]["cells"][trial.cell.name] = {
            "runs": verdict.runs,
            "cost": verdict.cost,
            "why": verdict.why,
        }
    return {"machine": target.host.machine, "cpu": target.host.cpu, "runtimes": runtimes}


def _read(
    workspace: Workspace | None, target: Target
) -> dict[tuple[str, str], tuple[dict[Cell, Verdict], float | None, float | None]]:
    """By runtime and version; nothing where the device is another one than it was."""
    if workspace is None:
        return {}
    try:
        record = json.loads(_path(workspace, target).read_text())
        # A name that now leads to another board must not inherit what was found.
        if (record["machine"], record["cpu"]) != (target.host.machine, target.host.cpu):
            return {}
        by_name = {cell.name: cell for cell in cells()}
        return {
            (name, kept["version"]): (
                {
                    by_name[cell]: Verdict(bool(v["runs"]), v["cost"], str(v["why"]))
                    for cell, v in kept["cells"].items()
                    if cell in by_name
                },
                _gain(kept, "path_gain"),
                _gain(kept, "half_gain"),
            )
            for name, kept in record["runtimes"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _gain(kept: Mapping[str, Any], name: str) -> float | None:
    return None if kept.get(name) is None else float(kept[name])


@contextmanager
def _captured_output(log: Path) -> Iterator[None]:
    """Send what this process prints to `log`, also what TensorFlow's C++ parts print."""
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
