"""A run's results as they come in: written to results.json whatever happens."""

from __future__ import annotations

import platform
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from edgesparse.commands.fleet.connect import Target
from edgesparse.commands.prediction.outcomes import Foreseen, came_true
from edgesparse.devices.agent.event_stream import ProtocolError
from edgesparse.devices.agent.events import Check, Event, Failed, Round, Waiting
from edgesparse.devices.agent.job import Job
from edgesparse.devices.agent.run_job import run_job
from edgesparse.devices.transport.interface import ConnectionLost
from edgesparse.graph import events
from edgesparse.graph.fingerprints import library_versions, revision
from edgesparse.graph.open_runs import held
from edgesparse.graph.workspace import Workspace
from edgesparse.measure.job import EXACT, NOT_MEASURED, Candidate, build_job, build_rows
from edgesparse.measure.provenance import Provenance
from edgesparse.measure.results import DeviceInfo, ReleaseInfo, Results, write_results
from edgesparse.measure.rows import GateResult, Row, RuntimeInfo
from edgesparse.spec.device import Device
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Benchmark
from edgesparse.spec.safe.compression import wire_bytes
from edgesparse.spec.safe.text import clean


@dataclass
class RunRecord:
    """What a run has so far."""

    begun: Results
    devices: list[DeviceInfo]
    rows: list[Row]
    gates: list[GateResult]
    notes: list[str]
    releases: list[ReleaseInfo] = field(default_factory=list)
    order: tuple[str, ...] = ()
    """The devices' names, in the order in which they are shown: not that in which they end."""
    foreseen: dict[str, list[Foreseen]] = field(default_factory=dict)
    """By device: what was said before anything was trained there."""
    provenance: Provenance = field(default_factory=Provenance)
    failures: list[str] = field(default_factory=list)
    """What failed beside the rows."""
    left: set[str] = field(default_factory=set)
    """The devices where something may be left, since they went away."""
    finished: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Devices are measured at the same time."""

    def add_device(self, info: DeviceInfo, notes: Sequence[str] = ()) -> None:
        self.devices.append(info)
        self.notes += notes

    def add_dead(self, device: Device, variants: Sequence[str], error: str) -> None:
        """A device that cannot be used is a block of failed rows."""
        self.add_device(DeviceInfo(name=device.name, description=device.description, error=error))
        self.rows += self._failed(device, variants, error)

    def _failed(self, device: Device, variants: Sequence[str], error: str) -> list[Row]:
        return [
            Row(
                pipeline=self.begun.pipeline,
                device=device.name,
                runtime=RuntimeInfo(name=runtime.name, version=runtime.version or "unknown"),
                delegate=device.delegate_used,
                threads=threads,
                clock=device.clock,
                variant=variant,
                status="failed",
                error=error,
            )
            for runtime in device.runtimes
            for threads in device.threads or [1]
            for variant in variants
        ]

    def results(self) -> Results:
        place = {name: number for number, name in enumerate(self.order)}
        last = len(place)
        return self.begun.model_copy(
            update={
                "devices": sorted(self.devices, key=lambda d: place.get(d.name, last)),
                "rows": sorted(self.rows, key=lambda row: place.get(row.device, last)),
                "gates": sorted(self.gates, key=lambda gate: place.get(gate.device, last)),
                "releases": sorted(self.releases, key=lambda r: place.get(r.device, last)),
                "provenance": self.provenance,
                "failures": self.failures,
                "notes": [*self.notes, *self._came_true()],
                "finished": self.finished,
            }
        )

    def _came_true(self) -> list[str]:
        lines = [
            line
            for device, said in self.foreseen.items()
            for line in came_true(said, self.rows_of(device))
        ]
        return list(dict.fromkeys(lines))  # What is known of the model is said for each device.

    @contextmanager
    def alone(
        self, device: Device, variants: Sequence[str], log: Path, *, one: bool = False
    ) -> Iterator[None]:
        """A block about one device, which never takes the other ones with it: whatever ends it
        becomes failed rows. Where there is but this `one`, an error of ours is raised."""
        try:
            yield
        except EdgesparseError as error:
            if one:
                raise
            self._fail(device, variants, error, log)
        except Exception as error:
            self._fail(device, variants, error, log)

    def _fail(self, device: Device, variants: Sequence[str], error: Exception, log: Path) -> None:
        """Failed rows for the variants that have none. What is no error of ours has its traceback
        in `log`, since it is a mistake of this program."""
        text = clean(str(error))
        if not isinstance(error, EdgesparseError):
            text = f"device {device.name}: {type(error).__name__}: {text[:200]} (details in {log})"
            with suppress(OSError), log.open("a") as file:
                traceback.print_exception(error, file=file)
        with self.lock:
            known = {row.variant for row in self.rows if row.device == device.name}
            self.rows += self._failed(device, [v for v in variants if v not in known], text)
            self.failures.append(text)

    def measure(
        self,
        target: Target,
        candidates: Sequence[Candidate],
        benchmark: Benchmark,
        listener: events.Listener,
        stop: threading.Event,
        heard: Sequence[Event] = (),
        part: str = "",
    ) -> list[Event]:
        """Measure on one device and add the rows: also of what an interrupt or error left.

        What the device has said of candidates before (`heard`) is not asked again; a run that
        measures in parts names each. Returns all that the device has said by now.
        """
        # Nothing drifts on such a clock and every run of a model costs minutes: one round says all.
        if target.device.clock == "instructions":
            benchmark = benchmark.model_copy(update=EXACT)
        known = {event.entry for event in heard if isinstance(event, Check | Round | Failed)}
        asked = [one for one in candidates if one.name not in known]
        job = build_job(f"{self.begun.run}-{target.device.name}{part}", benchmark, asked)
        job_events: list[Event] = list(heard)
        lost = NOT_MEASURED
        try:
            if job.entries:
                _measure(target, job, job_events, listener, stop)
        except ProtocolError as error:
            job_events, lost = list(heard), str(error)
        except EdgesparseError as error:
            if isinstance(error, ConnectionLost):
                self.left.add(target.device.name)
            lost = str(error)
        # Whatever ended it: what was measured so far is kept.
        finally:
            self.add_rows(target, candidates, job_events, lost)
        return job_events

    def add_rows(
        self,
        target: Target,
        candidates: Sequence[Candidate],
        job_events: Sequence[Event] | None,
        lost: str = NOT_MEASURED,
    ) -> None:
        """Add a row per candidate; see build_rows. `lost` is why some were not measured."""
        about = (self.begun.pipeline, target.device.name, self.begun.baseline, candidates)
        try:
            rows = build_rows(*about, job_events)
        except (ArithmeticError, ValueError) as error:
            # Each value was looked at alone; it is together that they make no sense.
            lost = f"device {target.device.name}: its figures make no sense: {error}"
            rows = build_rows(*about, [])
        if target.device.connect.local is None:
            rows = [_with_update(row, one) for row, one in zip(rows, candidates, strict=True)]
        # Each device's thread ends in its own time.
        with self.lock:
            self.rows += [
                row.model_copy(update={"error": lost}) if row.error == NOT_MEASURED else row
                for row in rows
            ]

    def explain(self, device: str, why: Callable[[Row], str | None]) -> None:
        """Put what is known of them in place of the errors of failed rows."""
        with self.lock:
            self.rows = [
                row.model_copy(update={"error": said})
                if row.device == device and row.status == "failed" and (said := why(row))
                else row
                for row in self.rows
            ]

    def rows_of(self, device: str) -> list[Row]:
        with self.lock:
            return [row for row in self.rows if row.device == device]


def _with_update(row: Row, candidate: Candidate) -> Row:
    """With what the file costs on the way to the device."""
    if candidate.path is None or row.status != "ok":
        return row
    return row.model_copy(update={"transfer_bytes": wire_bytes(candidate.path)})


def _measure(
    target: Target,
    job: Job,
    job_events: list[Event],
    listener: events.Listener,
    stop: threading.Event,
) -> None:
    label = f"benchmark on {target.device.name}"
    listener(events.StageStarted(label, 1, 1))
    total = len(job.entries) * (job.rounds + 1)
    done = 0

    def on_event(event: Event) -> None:
        nonlocal done
        job_events.append(event)
        if isinstance(event, Waiting):
            listener(events.Note(f"waiting: another job is measuring on {target.device.name}"))
        elif isinstance(event, Failed):
            done += job.rounds + 1 if event.round is None else job.rounds - event.round
        elif isinstance(event, Check | Round):
            done += 1
            text = f"{event.entry}"
            if isinstance(event, Round):
                text += f", round {event.round + 1}/{job.rounds}"
            listener(events.StageProgress(label, done / total, text))

    def on_upload(share: float, text: str) -> None:
        listener(events.StageProgress(label, 0.0, text))

    run_job(target.transport, job, on_event, stop, on_upload)
    listener(events.StageDone(label, 1, 1))


@contextmanager
def recorded(
    workspace: Workspace,
    pipeline: str,
    baseline: str,
    devices: Sequence[Device],
    *,
    quick: bool,
    command: str,
    pipeline_digest: str = "",
    source: Sequence[str] = (),
) -> Iterator[RunRecord]:
    """A new run; its results are written when the block ends, however it ends."""
    begun = Results(
        run=workspace.new_run(pipeline),
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        quick=quick,
        host={"machine": platform.machine(), "system": platform.system()},
        versions=library_versions(),
        pipeline=pipeline,
        pipeline_digest=pipeline_digest,
        commit=revision(workspace.folder.parent),
        baseline=baseline,
        pipeline_source=list(source),
        command=command,
    )
    order = tuple(device.name for device in devices)
    path = workspace.results_path(begun.run)
    with held(path.parent, order) as left:
        record = RunRecord(begun, [], [], [], [], order=order, left=left)
        try:
            yield record
            record.finished = True
        finally:
            _write(record, path)


def _write(record: RunRecord, path: Path) -> None:
    """Write the results, also when Ctrl-C comes while they are written; a disk that is full does
    not take away the table, which is printed from the record."""
    try:
        write_results(record.results(), path)
    except OSError as error:
        record.failures.append(f"the results could not be written: {error.strerror}: {path}")
    except KeyboardInterrupt:
        write_results(record.results(), path)
        raise
