"""Release of the best variant on a device, after the benchmark."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgesparse.commands.fleet.target import Target
from edgesparse.commands.results.record import RunRecord
from edgesparse.devices.emulator import machine as emulator
from edgesparse.devices.setup.releases import Release, install
from edgesparse.graph import events
from edgesparse.measure.benchmark import Candidate
from edgesparse.measure.instruction_counts import incomparable_formats
from edgesparse.measure.results import ReleaseInfo
from edgesparse.measure.rows import Row
from edgesparse.measure.selection import best_row
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Pipeline
from edgesparse.spec.safe.temporary_folders import temporary_folder
from edgesparse.stages.samples import LABELS, TRANSFORM


def release_best(
    pipeline: Pipeline,
    record: RunRecord,
    listener: events.Listener,
    stop: threading.Event,
    target: Target,
    samples: Path,
    candidates: Sequence[Candidate],
) -> None:
    """Install the best measured variant on a device and make it current, and record the release.

    A device without an acceptable variant keeps its release. A failure fails the run.
    """
    device = target.device
    variant = None if pipeline.release in (None, "auto") else pipeline.release
    row = best_row(record.rows_of(device.name), record.gates, variant)
    if row is None:
        with record.lock:
            record.notes.append(
                f"{device.name}: nothing was released: no variant ran and met its gates"
            )
        return
    label = f"install on {device.name}"
    listener(events.StageStarted(label, 1, 1))
    try:
        info = _install(pipeline, record, stop, target, samples, _candidate(row, candidates), row)
    except EdgesparseError as error:
        listener(events.StageFailed(label, (row.variant,), str(error)))
        with record.lock:
            record.failures.append(str(error))
        return
    listener(events.StageDone(label, 1, 1))
    with record.lock:
        record.releases.append(info)


def _candidate(row: Row, candidates: Sequence[Candidate]) -> Candidate:
    placement = (row.variant, row.runtime.name, row.threads, row.delegate)
    return next(
        c for c in candidates if (c.variant, c.runtime.name, c.threads, c.delegate) == placement
    )


def _install(
    pipeline: Pipeline,
    record: RunRecord,
    stop: threading.Event,
    target: Target,
    samples: Path,
    candidate: Candidate,
    row: Row,
) -> ReleaseInfo:
    assert candidate.limits is not None
    about = {
        "pipeline_digest": record.initial.pipeline_digest,
        "variant": row.variant,
        "runtime": row.runtime.model_dump(),
    }
    transport = target.transport
    transforms = json.loads((samples / TRANSFORM).read_text())
    # Copies, since a device gets these files only, not the store's folder.
    with temporary_folder() as temporary:
        for name in (LABELS, TRANSFORM):
            Path(temporary, name).write_text(json.dumps(json.loads((samples / name).read_text())))
        release = Release(
            pipeline.name,
            candidate.entry,
            Path(temporary, LABELS),
            Path(temporary, TRANSFORM),
            about,
            candidate.limits.min_agreement,
        )
        keep = target.device.keep_releases
        done = install(transport, release, keep, f"{record.initial.run}-{target.device.name}", stop)
    rows = record.rows_of(target.device.name)
    program = shlex.join([transport.python, f"{done.path}/predict.py"])
    reason = incomparable_formats(rows, target.info.cpu)
    # An emulated device that is booted for a run is reset at its end.
    lasts = not target.device.emulated or emulator.running(target.device.name) is not None
    return ReleaseInfo(
        device=target.device.name,
        pipeline=pipeline.name,
        variant=row.variant,
        runtime=row.runtime.name,
        digest=done.digest,
        previous=done.state.previous,
        folder=done.path,
        run_command=f"{program} {_files(transforms)}" if lasts else None,
        transfer_bytes=row.transfer_bytes,
        warning=f"selected by instruction counts: {reason}" if reason else None,
    )


def _files(transforms: Mapping[str, Mapping[str, str] | None]) -> str:
    """Arguments of predict.py, as a user would type them."""
    every = [transform or {"kind": "", "file": "npy"} for transform in transforms.values()]
    if {transform["kind"] for transform in every} == {"text"}:
        return '"A TEXT"'  # A single text, for any number of inputs.
    return " ".join(f"INPUT.{transform['file']}" for transform in every)
