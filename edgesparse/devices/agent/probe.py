"""Probes how a device's runtimes execute sparse storage: every cell of the compatibility table.

Each cell's model runs in its own process, so that a crash of its runtime is a result, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from edgesparse.devices.agent.events import Check, Event, Failed
from edgesparse.devices.agent.job import Entry, Job, Settings, new_id
from edgesparse.devices.agent.run_job import round_medians, run_job
from edgesparse.devices.agent.sample_files import save_golden
from edgesparse.devices.transport.interface import Progress, Transport
from edgesparse.spec.safe.temporary_folders import temporary_folder
from edgesparse.tflite.runtimes.compatibility import KERNELS, Cell, Verdict
from edgesparse.tflite.runtimes.probe_models import (
    STORED_SHARE,
    TOLERANCE,
    CellModel,
    cell_models,
    network_models,
)

WIDTH = 2048
"""Width of the fully connected layers whose kernels are timed: too large for most caches."""
_TIMED = Settings(warmup_runs=2, warmup_seconds=0.0, runs=12, seconds=0.05, timeout_seconds=300.0)


_K = TypeVar("_K")


@dataclass(frozen=True)
class CellResult:
    """The verdict on one cell by one runtime."""

    runtime: str
    cell: Cell
    verdict: Verdict


def probe_cells(
    transport: Transport,
    runtimes: Sequence[str],
    delegate: str | Mapping[str, Any],
    progress: Progress = lambda _, __: None,
    *,
    timed: bool = True,
) -> list[CellResult]:
    """Run every cell on every runtime of a device.

    Args:
        timed: measure the sparse kernels, too; otherwise a verdict's cost is None.

    Raises:
        DeviceError: the device cannot be used.
    """
    progress(0.0, "making the models")
    # Encoded by the code that encodes a pipeline's models: the probe sees the same files.
    models = cell_models()
    with temporary_folder() as folder_name:
        folder = Path(folder_name)
        entries = _entries(folder, models, runtimes, delegate)
        checks = Job(new_id("cells"), 0, _TIMED, tuple(entries.values()))
        done = 0

        def count(event: Event) -> None:
            nonlocal done
            if isinstance(event, Check | Failed):
                done += 1
                share = done / len(entries) * (0.8 if timed else 1.0)
                progress(share, f"cell {done} of {len(entries)}")

        events = run_job(transport, checks, count)
        verdicts = _verdicts(entries, events)
        if timed:
            progress(0.8, "timing the sparse kernels")
            costs = _costs(transport, folder, verdicts, delegate)
            verdicts = {
                key: replace(verdict, cost=costs.get(key)) for key, verdict in verdicts.items()
            }
    return [CellResult(runtime, cell, verdict) for (runtime, cell), verdict in verdicts.items()]


@dataclass(frozen=True)
class NetworkSpeedups:
    """Speed-ups of a network by `zeros` in its 1x1 convolutions and by `half` precision; 0 where it
    fails or its outputs are wrong."""

    zeros: float
    half: float


def probe_networks(
    transport: Transport,
    runtimes: Sequence[str],
    delegate: str | Mapping[str, Any],
    progress: Progress = lambda _, __: None,
) -> dict[str, NetworkSpeedups]:
    """Measure each runtime's speed-up by zeros and by half precision, by its name.

    Raises:
        DeviceError: the device cannot be used.
    """
    progress(0.0, "making a network")
    files, x, y = network_models()
    with temporary_folder() as folder:
        golden = Path(folder) / "golden.npz"
        save_golden(golden, x, y)
        entries: dict[tuple[str, str], Entry] = {}
        for form, content in files.items():
            path = Path(folder) / f"{form}.tflite"
            path.write_bytes(content)
            for runtime in runtimes:
                name = f"{runtime} {form}"
                entries[runtime, form] = Entry(
                    name, path, runtime, delegate, 1, golden=golden, tolerance=TOLERANCE
                )
        progress(0.5, "timing it with zeros, without, and in half precision")
        events = run_job(transport, Job(new_id("networks"), 3, _TIMED, tuple(entries.values())))
    verdicts, times = _verdicts(entries, events), round_medians(events)

    def gain(runtime: str, form: str) -> float:
        before, after = (times.get(entries[runtime, f].name) for f in ("dense", form))
        right = verdicts[runtime, form].runs
        return min(before) / min(after) if right and before and after else 0.0

    return {
        runtime: NetworkSpeedups(gain(runtime, "sparse"), gain(runtime, "half"))
        for runtime in runtimes
    }


_Key = tuple[str, Cell]


def _entries(
    folder: Path,
    models: Sequence[CellModel],
    runtimes: Sequence[str],
    delegate: str | Mapping[str, Any],
) -> dict[_Key, Entry]:
    entries = {}
    for number, model in enumerate(models):
        path, golden = folder / f"{number}.tflite", folder / f"{number}.npz"
        path.write_bytes(model.content)
        save_golden(golden, model.x, model.y)
        for runtime in runtimes:
            entries[runtime, model.cell] = Entry(
                f"{runtime} {model.cell.name}",
                path,
                runtime,
                delegate,
                1,
                golden=golden,
                tolerance=TOLERANCE,
            )
    return entries


def _verdicts(entries: Mapping[_K, Entry], events: Sequence[Event]) -> dict[_K, Verdict]:
    events_by_entry = {event.entry: event for event in events if isinstance(event, Check | Failed)}
    verdicts = {}
    for key, entry in entries.items():
        event = events_by_entry.get(entry.name)
        if isinstance(event, Failed):
            verdict = Verdict(False, why=event.error.strip().splitlines()[-1][:200])
        elif event is None:
            verdict = Verdict(False, why="not run")
        elif (event.agreement or 0.0) < 1.0:
            verdict = Verdict(False, why="wrong outputs")
        else:
            verdict = Verdict(True)
        verdicts[key] = verdict
    return verdicts


def _costs(
    transport: Transport,
    folder: Path,
    verdicts: Mapping[_Key, Verdict],
    delegate: str | Mapping[str, Any],
) -> dict[_Key, float]:
    """Measure the time of each sparse kernel per stored element, relative to dense."""
    kernels = {k: v for k, v in verdicts.items() if v.runs and k[1].form in KERNELS}
    twins = {key: (key[0], replace(key[1], form="dense")) for key in kernels}
    models = {model.cell: model.content for model in cell_models(WIDTH, ops=("FULLY_CONNECTED",))}
    entries = {}
    for number, (runtime, cell) in enumerate({*kernels, *twins.values()}):
        path = folder / f"timed-{number}.tflite"
        path.write_bytes(models[cell])
        name = f"{runtime} {cell.name}"
        entries[runtime, cell] = Entry(name, path, runtime, delegate, 1)
    events = run_job(transport, Job(new_id("kernels"), 3, _TIMED, tuple(entries.values())))
    nanoseconds = round_medians(events)
    costs = {}
    for key, twin in twins.items():
        sparse, dense = (nanoseconds.get(entries[k].name) for k in (key, twin))
        if sparse and dense:
            costs[key] = min(sparse) / min(dense) / STORED_SHARE
    return costs
