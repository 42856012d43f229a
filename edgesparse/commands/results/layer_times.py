"""Times of a file's operators, each measured alone from a file of its own."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgesparse.commands.fleet.target import Target
from edgesparse.commands.results.record import RunRecord
from edgesparse.devices.agent.event_stream import ProtocolError
from edgesparse.devices.agent.events import Check, Event, Round
from edgesparse.devices.agent.job import Entry, Job, Settings
from edgesparse.graph import events
from edgesparse.measure.benchmark import Candidate
from edgesparse.measure.rows import Clock, Layer, Row
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.safe.temporary_folders import temporary_folder
from edgesparse.tflite.format.operators import single_files

ROUNDS: Mapping[Clock, int] = {"wall": 3, "instructions": 1}
SETTINGS: Mapping[Clock, Settings] = {
    "wall": Settings(5, 0.02, runs=30, seconds=0.1, timeout_seconds=120),
    "instructions": Settings(1, 0.0, runs=5, seconds=0.05, timeout_seconds=600),
}
"""Of a round of one operator, by clock: short, since a network has many. Instruction counts do not
drift, and every run of an emulated device is slow."""
Key = tuple[str, str, int]
"""Variant, runtime and threads of a candidate and of its row, on one device."""


@dataclass(frozen=True)
class LayerJob:
    """A job whose entries are operators.

    Attributes:
        owners: by entry the candidate's key and the operator's number.
        notes: why operators of a file are not measured.
    """

    job: Job
    owners: Mapping[str, tuple[Key, int]]
    notes: tuple[str, ...] = ()


def measure_layers(
    record: RunRecord,
    target: Target,
    candidates: Sequence[Candidate],
    listener: events.Listener,
    stop: threading.Event,
) -> None:
    """Measure each operator of the candidates' files alone, and add the times to the record's rows;
    a failure is a note."""
    device = target.device.name
    job_events: list[Event] = []
    layers = None
    rows = {_key(row): row for row in record.rows_of(device) if row.status == "ok"}
    job_id = f"{record.initial.run}-{device}-layers"
    try:
        with temporary_folder() as folder:
            layers = layer_job(job_id, target.device.clock, candidates, rows, folder)
            record.notes += [f"{device}: {note}" for note in layers.notes]
            if layers.job.entries:
                label = f"layers on {device}"
                record.measure_job(target, layers.job, job_events, listener, stop, label)
    except (EdgesparseError, OSError) as error:
        if isinstance(error, ProtocolError):
            job_events.clear()
        text = record.mask(str(error))
        record.notes.append(f"{device}: not every layer was measured: {text}")
    # However it ended: measurements so far are kept.
    finally:
        if layers is not None:
            with record.lock:
                record.rows = with_layer_times(record.rows, device, layers, job_events)


def layer_job(
    job_id: str,
    clock: Clock,
    candidates: Sequence[Candidate],
    rows: Mapping[Key, Row],
    folder: Path,
) -> LayerJob:
    """Write each operator of the candidates' files to `folder`, and build the job that measures
    them.

    Args:
        clock: of the device; it decides how often operators are run.
        rows: of the candidates that were measured, by key: each operator is run by what ran it in
            the whole file.

    Raises:
        UsageError: a file is damaged.
        OSError: a file cannot be read or written.
    """
    notes: dict[str, None] = {}
    entries: list[Entry] = []
    owners: dict[str, tuple[Key, int]] = {}
    paths: dict[Path, dict[int, Path]] = {}
    for candidate in candidates:
        row = rows.get(_key(candidate))
        if row is None or candidate.path is None:
            continue
        if candidate.shapes:
            notes[f"layers of {candidate.variant} were not measured: its shapes are dynamic"] = None
            continue
        if candidate.path not in paths:
            paths[candidate.path] = _write(candidate.path, folder, len(paths))
        if not paths[candidate.path]:
            notes[f"layers of {candidate.variant} were not measured: none can run alone"] = None
        for number, path in paths[candidate.path].items():
            name = f"{number}:{candidate.name}"
            owners[name] = _key(candidate), number
            entries.append(
                replace(
                    candidate.entry,
                    name=name,
                    model=path,
                    delegate=_delegate(candidate.entry, row.layers[number]),
                    golden=None,
                    samples=None,
                    reduced=(),
                )
            )
    job = Job(job_id, ROUNDS[clock], SETTINGS[clock], tuple(entries))
    return LayerJob(job, owners, tuple(notes))


def _key(measured: Candidate | Row) -> Key:
    return measured.variant, measured.runtime.name, measured.threads


def _delegate(whole: Entry, layer: Layer) -> str | Mapping[str, Any]:
    """Delegate of an operator alone: edgesparse's would leave some that it runs for the sake of
    their neighbours."""
    if isinstance(whole.delegate, str) or layer.taken is None:
        return whole.delegate
    if not layer.taken:
        return "xnnpack"
    return {**whole.delegate, "options": {**whole.delegate.get("options", {}), "dense": "always"}}


def _write(source: Path, folder: Path, index: int) -> dict[int, Path]:
    paths = {}
    for number, content in single_files(source.read_bytes(), str(source)):
        paths[number] = folder / f"{index}-{number}.tflite"
        paths[number].write_bytes(content)
    return paths


def _is_left(check: Check) -> bool:
    return any(state == "left" for operator, state, _ in check.nodes if operator != "DENSIFY")


def with_layer_times(
    rows: Sequence[Row], device: str, layers: LayerJob, job_events: Sequence[Event]
) -> list[Row]:
    """Add to a device's rows the times of their operators: the median of the rounds' medians. What
    the delegate left, although it runs it in the whole file, has none."""
    left = {event.entry for event in job_events if isinstance(event, Check) and _is_left(event)}
    medians: dict[tuple[Key, int], list[float]] = {}
    for event in job_events:
        if isinstance(event, Round) and event.entry in layers.owners.keys() - left:
            owner = layers.owners[event.entry]
            medians.setdefault(owner, []).append(statistics.median(event.latency_ns) / 1e6)
    result = []
    for row in rows:
        if row.device == device and row.status == "ok":
            timed = [
                layer.model_copy(update={"time_ms": statistics.median(values)})
                if (values := medians.get((_key(row), number)))
                else layer
                for number, layer in enumerate(row.layers)
            ]
            row = row.model_copy(update={"layers": timed})
        result.append(row)
    return result
