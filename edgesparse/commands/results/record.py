"""Record of a run while it executes; results.json is written however the run ends."""

from __future__ import annotations

import platform
import statistics
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from edgesparse.commands.fleet.target import Target
from edgesparse.commands.prediction.outcomes import Prediction, confirmed, with_predictions
from edgesparse.devices.agent.event_stream import ProtocolError
from edgesparse.devices.agent.events import Check, Event, Failed, Round, Waiting
from edgesparse.devices.agent.job import Job
from edgesparse.devices.agent.run_job import run_job
from edgesparse.devices.transport.interface import ConnectionLost
from edgesparse.graph import events
from edgesparse.graph.open_runs import hold
from edgesparse.graph.versions import library_versions, revision
from edgesparse.graph.workspace import Workspace
from edgesparse.measure.benchmark import EXACT, NOT_MEASURED, Candidate, build_job, build_rows
from edgesparse.measure.results import DeviceInfo, ReleaseInfo, Results, write_results
from edgesparse.measure.rows import GateResult, Row, RuntimeInfo
from edgesparse.measure.training_details import Provenance
from edgesparse.spec.device import Device
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Benchmark
from edgesparse.spec.safe.compression import wire_bytes
from edgesparse.spec.safe.text import clean, without_credentials

FIRST = Benchmark(rounds=1, min_seconds=0.15, min_runs=10, warmup_seconds=0.1)
"""How the first rows are measured: a glance, before training goes on."""
PROVISIONAL = "provisional times of one short round, before the other variants are trained"


@dataclass
class RunRecord:
    """Results of a run so far."""

    initial: Results
    """The run without rows."""
    devices: list[DeviceInfo]
    rows: list[Row]
    gates: list[GateResult]
    notes: list[str]
    releases: list[ReleaseInfo] = field(default_factory=list)
    order: tuple[str, ...] = ()
    """Devices in the order in which reports show them."""
    predictions: dict[str, list[Prediction]] = field(default_factory=dict)
    """By device, as made before training."""
    provenance: Provenance = field(default_factory=Provenance)
    failures: list[str] = field(default_factory=list)
    """Failures besides those of rows."""
    first_rows: dict[str, list[Row]] = field(default_factory=dict)
    """Provisional rows by device, until it has others."""
    left: set[str] = field(default_factory=set)
    """Devices that can have leftovers, since the connection was lost."""
    finished: bool = False
    mask: Callable[[str], str] = without_credentials
    """Masks secrets in errors."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Devices are measured in parallel threads."""

    def add_device(self, info: DeviceInfo, notes: Sequence[str] = ()) -> None:
        self.devices.append(info)
        self.notes += notes

    def add_failed_device(self, device: Device, variants: Sequence[str], error: str) -> None:
        """Add a device that cannot be used, as failed rows."""
        self.add_device(DeviceInfo(name=device.name, description=device.description, error=error))
        self.rows += self._failed(device, variants, error)

    def _failed(self, device: Device, variants: Sequence[str], error: str) -> list[Row]:
        return [
            Row(
                pipeline=self.initial.pipeline,
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
        """Assemble the results, with devices in their order."""
        position = {name: number for number, name in enumerate(self.order)}
        last = len(position)
        measured = {row.device for row in self.rows}
        first = [row for rows in self.first_rows.values() for row in rows]
        first = [row for row in first if row.device not in measured]
        rows = sorted([*self._predicted(), *first], key=lambda row: position.get(row.device, last))
        provisional = [f"{name}: {PROVISIONAL}" for name in dict.fromkeys(r.device for r in first)]
        return self.initial.model_copy(
            update={
                "devices": sorted(self.devices, key=lambda d: position.get(d.name, last)),
                "rows": rows,
                "gates": sorted(self.gates, key=lambda gate: position.get(gate.device, last)),
                "releases": sorted(self.releases, key=lambda r: position.get(r.device, last)),
                "provenance": self.provenance,
                "failures": self.failures,
                "notes": [*self.notes, *provisional],
                "quick": self.initial.quick or bool(first),
                "advice": self._confirmed(),
                "finished": self.finished,
            }
        )

    def _predicted(self) -> list[Row]:
        """Add to the rows the speed-ups that were predicted on their device."""
        rows = self.rows
        for device, predictions in self.predictions.items():
            measured = [row for row in rows if row.device == device]
            others = [row for row in rows if row.device != device]
            rows = [*others, *with_predictions(measured, predictions)]
        return rows

    def _confirmed(self) -> list[str]:
        messages = [
            message
            for device, predictions in self.predictions.items()
            for message in confirmed(predictions, self.rows_of(device))
        ]
        return list(dict.fromkeys(messages))  # Devices share predictions about the model.

    @contextmanager
    def isolated(
        self, device: Device, variants: Sequence[str], log: Path, *, reraise: bool = False
    ) -> Iterator[None]:
        """Run a block about one device so that its failure does not end the other devices.

        Args:
            variants: those that become failed rows where the block fails.
            log: gets the traceback of an unexpected exception.
            reraise: raise an EdgesparseError instead, for a run on a single device.
        """
        try:
            yield
        except EdgesparseError as error:
            if reraise:
                raise
            self._fail(device, variants, error, log)
        except Exception as error:
            self._fail(device, variants, error, log)

    def _fail(self, device: Device, variants: Sequence[str], error: Exception, log: Path) -> None:
        """Add failed rows for the variants without rows; the traceback of a bug goes to `log`."""
        text = clean(self.mask(str(error)))
        if not isinstance(error, EdgesparseError):
            text = f"device {device.name}: {type(error).__name__}: {text[:200]} (details in {log})"
            with suppress(OSError), log.open("a") as file:
                file.write(self.mask("".join(traceback.format_exception(error))))
        with self.lock:
            names = {row.variant for row in self.rows if row.device == device.name}
            self.rows += self._failed(device, [v for v in variants if v not in names], text)
            self.failures.append(text)

    def measure_first(
        self,
        target: Target,
        candidates: Sequence[Candidate],
        listener: events.Listener,
        stop: threading.Event,
    ) -> None:
        """Measure candidates in one short round; their rows stand until the device has others. A
        failure is left to the measurement that follows."""
        device = target.device.name
        # Evaluated on this machine: a device would need minutes for the samples of a large model.
        candidates = [replace(candidate, on_host=True) for candidate in candidates]
        job = build_job(f"{self.initial.run}-{device}-first", FIRST, candidates)
        job_events: list[Event] = []
        about = (self.initial.pipeline, device, self.initial.baseline, candidates)
        # Values of a device can be valid alone and not in combination.
        with suppress(EdgesparseError, ArithmeticError, ValueError):
            if job.entries:
                label = f"first benchmark on {device}"
                self.measure_job(target, job, job_events, listener, stop, label)
            rows = [row for row in build_rows(*about, job_events) if row.status == "ok"]
            with self.lock:
                self.first_rows[device] = rows

    def measure(
        self,
        target: Target,
        candidates: Sequence[Candidate],
        benchmark: Benchmark,
        listener: events.Listener,
        stop: threading.Event,
        previous: Sequence[Event] = (),
        part: str = "",
    ) -> list[Event]:
        """Measure on one device and add rows, also for a part that an interrupt or error ended.

        Args:
            previous: events of candidates that were measured before; they are not repeated.
            part: names the job of a run that measures in parts.

        Returns:
            All events, `previous` included.
        """
        # Such a clock does not drift, and every run of a model costs minutes: one round suffices.
        if target.device.clock == "instructions":
            benchmark = benchmark.model_copy(update=EXACT)
        measured = {event.entry for event in previous if isinstance(event, Check | Round | Failed)}
        pending = [candidate for candidate in candidates if candidate.name not in measured]
        job = build_job(f"{self.initial.run}-{target.device.name}{part}", benchmark, pending)
        job_events: list[Event] = list(previous)
        lost = NOT_MEASURED
        about = (self.initial.pipeline, target.device.name, self.initial.baseline, candidates)
        # What is wrong with them is reported when they have been measured.
        with suppress(EdgesparseError, ArithmeticError, ValueError):
            listener(events.BenchmarkStarted(tuple(build_rows(*about, None))))
        named = {candidate.name: candidate for candidate in candidates}

        def on_round(event: Round) -> None:
            of, p50_ms = named[event.entry], statistics.median(event.latency_ns) / 1e6
            placement = target.device.name, of.runtime.name, of.threads, of.variant
            listener(events.RoundMeasured(*placement, event.round + 1, job.rounds, p50_ms))

        try:
            if job.entries:
                label = f"benchmark on {target.device.name}"
                self.measure_job(target, job, job_events, listener, stop, label, on_round)
        except ProtocolError as error:
            job_events, lost = list(previous), str(error)
        except EdgesparseError as error:
            lost = str(error)
        # However it ended: measurements so far are kept.
        finally:
            rows = self.add_rows(target, candidates, job_events, lost)
            listener(events.BenchmarkDone(tuple(rows)))
        return job_events

    def measure_job(
        self,
        target: Target,
        job: Job,
        job_events: list[Event],
        listener: events.Listener,
        stop: threading.Event,
        label: str,
        on_round: Callable[[Round], None] = lambda _: None,
    ) -> None:
        """Run a job and append its events to `job_events`, also when it fails."""
        try:
            _run_job(target, job, job_events, listener, stop, label, on_round)
        except EdgesparseError as error:
            if isinstance(error, ConnectionLost):
                self.left.add(target.device.name)
            if not stop.is_set():
                listener(events.StageFailed(label, (), self.mask(str(error))))
            raise

    def add_rows(
        self,
        target: Target,
        candidates: Sequence[Candidate],
        job_events: Sequence[Event] | None,
        lost: str = NOT_MEASURED,
    ) -> list[Row]:
        """Add a row per candidate; see build_rows. `lost` is the error of those not measured."""
        about = (self.initial.pipeline, target.device.name, self.initial.baseline, candidates)
        try:
            rows = build_rows(*about, job_events)
        except (ArithmeticError, ValueError) as error:
            # Each value is valid alone; it is their combination that is not.
            lost = f"device {target.device.name}: inconsistent measurements: {error}"
            rows = build_rows(*about, [])
        if target.device.connect.local is None:
            rows = [_with_transfer(row, c) for row, c in zip(rows, candidates, strict=True)]
        rows = [
            row.model_copy(update={"error": lost}) if row.error == NOT_MEASURED else row
            for row in rows
        ]
        with self.lock:
            self.rows += rows
        return rows

    def explain(self, device: str, why: Callable[[Row], str | None]) -> None:
        """Replace the errors of a device's failed rows by explanations, where `why` returns one."""
        with self.lock:
            self.rows = [
                row.model_copy(update={"error": text})
                if row.device == device and row.status == "failed" and (text := why(row))
                else row
                for row in self.rows
            ]

    def rows_of(self, device: str) -> list[Row]:
        """Rows of a device so far."""
        with self.lock:
            return [row for row in self.rows if row.device == device]


def _with_transfer(row: Row, candidate: Candidate) -> Row:
    """Add the compressed size of the file on the wire to the device."""
    if candidate.path is None or row.status != "ok":
        return row
    return row.model_copy(update={"transfer_bytes": wire_bytes(candidate.path)})


def _run_job(
    target: Target,
    job: Job,
    job_events: list[Event],
    listener: events.Listener,
    stop: threading.Event,
    label: str,
    on_round: Callable[[Round], None],
) -> None:
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
                on_round(event)
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
    mask: Callable[[str], str] = without_credentials,
) -> Iterator[RunRecord]:
    """Start a run; its results are written when the block ends, however it ends."""
    initial = Results(
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
    path = workspace.results_path(initial.run)
    with hold(path.parent, order) as left:
        record = RunRecord(initial, [], [], [], [], order=order, left=left, mask=mask)
        try:
            yield record
            record.finished = True
        finally:
            _write(record, path)


def _write(record: RunRecord, path: Path) -> None:
    """Write the results, also when Ctrl-C arrives meanwhile; a full disk becomes a failure, so that
    the table is still printed from the record."""
    try:
        write_results(record.results(), path)
    except OSError as error:
        record.failures.append(f"results could not be written: {error.strerror}: {path}")
    except KeyboardInterrupt:
        write_results(record.results(), path)
        raise
