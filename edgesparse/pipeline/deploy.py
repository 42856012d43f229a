"""Runs: from a pipeline and devices, or from ready models, to results."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgesparse.bench.job import NOT_MEASURED, QUICK, Candidate, build_job, build_rows, check_gates
from edgesparse.bench.results import (
    DeviceInfo,
    ModelFile,
    Results,
    Row,
    RuntimeInfo,
    write_results,
)
from edgesparse.devices.connection import connect
from edgesparse.devices.events import Check, Event, Failed, HostInfo, Round, Waiting
from edgesparse.devices.measure import Job, host_info, run_job
from edgesparse.devices.transport import Transport
from edgesparse.pipeline import progress as told
from edgesparse.pipeline.execute import Outcome, execute
from edgesparse.pipeline.fingerprints import digests, library_versions
from edgesparse.pipeline.plan import Plan, build_plan
from edgesparse.pipeline.stages import Context, model_file, read_json
from edgesparse.pipeline.workspace import Workspace
from edgesparse.spec.device import Device, Runtime
from edgesparse.spec.errors import EdgesparseError, UsageError, did_you_mean
from edgesparse.spec.load import Loaded
from edgesparse.spec.pipeline import Benchmark, Pipeline


@dataclass(frozen=True)
class Target:
    """A device that has been asked what it is.

    `runtimes` are those it has of the ones its file lists; `missing` are (runtime, why) of the
    others, `notes` say which optional ones were left out.
    """

    device: Device
    transport: Transport
    host: HostInfo
    runtimes: tuple[RuntimeInfo, ...]
    missing: tuple[tuple[RuntimeInfo, str], ...]
    notes: tuple[str, ...]

    @property
    def info(self) -> DeviceInfo:
        return DeviceInfo(
            name=self.device.name,
            description=self.device.description,
            machine=self.host.machine,
            cpu=self.host.cpu,
            cores=self.host.cores,
            python=self.host.python,
            governor=self.host.governor,
        )


def open_target(device: Device) -> Target:
    """Connect to a device and ask which runtimes it has. Raises DeviceError."""
    transport = connect(device)
    host = host_info(transport)
    found, missing, notes = [], [], []
    for runtime in device.runtimes:
        version = host.runtimes.get(runtime.name)
        problem = _runtime_problem(device, runtime, version, host)
        if problem is None:
            assert version is not None
            found.append(RuntimeInfo(name=runtime.name, version=version))
        elif runtime.optional and version is None:
            notes.append(f"left out: {problem}")
        else:
            info = RuntimeInfo(name=runtime.name, version=version or runtime.version or "none")
            missing.append((info, problem))
    return Target(device, transport, host, tuple(found), tuple(missing), tuple(notes))


def _runtime_problem(
    device: Device, runtime: Runtime, version: str | None, host: HostInfo
) -> str | None:
    if version is None:
        return (
            f"{runtime.name} is not installed on device {device.name} for Python {host.python}; "
            f"install it there (pip install {runtime.name}) or take it out of the device file"
        )
    if runtime.version is not None and runtime.version != version:
        return (
            f"device {device.name} has {runtime.name} {version}, but its file asks for "
            f"{runtime.version}"
        )
    return None


def plan_for(
    loaded: Loaded[Pipeline], target: Target | None, variants: Sequence[str] | None = None
) -> Plan:
    """The plan of a pipeline for one device; without a device, up to converted models."""
    pipeline = loaded.spec
    for name in variants or ():
        if name not in pipeline.variants:
            raise UsageError(
                f"{loaded.path}: no variant {name!r}{did_you_mean(name, pipeline.variants)}"
            )
    return build_plan(
        pipeline,
        digests(loaded),
        library_versions(),
        target.runtimes if target else (),
        target.device.delegate if target else "xnnpack",
        variants,
    )


@dataclass(frozen=True)
class Options:
    """What a command adds to the files."""

    variants: tuple[str, ...] | None = None
    quick: bool = False
    benchmark: bool = True
    """False: up to verified models."""


def deploy(
    loaded: Loaded[Pipeline],
    devices: Sequence[Device],
    workspace: Workspace,
    listener: told.Listener,
    options: Options,
) -> Results:
    """Make every variant, measure each on each device, and write results.json.

    What is finished is written even when the run is interrupted or a device fails.
    """
    pipeline = loaded.spec
    run = workspace.new_run(pipeline.name)
    benchmark = quick(pipeline.benchmark) if options.quick else pipeline.benchmark
    results = _begin(run, pipeline.name, pipeline.baseline_variant, options.quick)
    results = results.model_copy(update={"pipeline_digest": _pipeline_digest(pipeline)})
    with _written(results, workspace) as progress:
        for device in devices:
            target = open_target(device)
            progress.add_device(target.info, target.notes)
            for note in target.notes:
                listener(told.Note(note))
            plan = plan_for(loaded, target, options.variants)
            context = Context(loaded, workspace.store, target.transport, run)
            try:
                outcome = execute(plan, context, workspace.log_path(run), listener)
            finally:
                workspace.remember(pipeline.name, plan)
            threads = device.threads or benchmark.threads
            candidates = _candidates(plan, outcome, context, target, threads)
            if options.benchmark:
                rows = progress.rows_of(
                    target, candidates, benchmark, pipeline, listener, Path(workspace.runs / run)
                )
            else:
                rows = build_rows(
                    pipeline.name, device.name, pipeline.baseline_variant, candidates, None
                )
            progress.rows += rows
        progress.gates = check_gates(pipeline.gates, progress.rows) if options.benchmark else []
    return progress.results()


def bench_models(
    models: Sequence[Path],
    devices: Sequence[Device],
    workspace: Workspace,
    listener: told.Listener,
    benchmark: Benchmark,
    quick_mode: bool,
) -> Results:
    """Measure ready .tflite files; ratios refer to the first."""
    from edgesparse.tflite.inspect import inspect, read_model

    files: dict[str, tuple[Path, ModelFile]] = {}
    for path in models:
        info = inspect(read_model(path), str(path))
        name = path.stem if path.stem not in files else str(path)
        files[name] = (path, model_file(info))
    run = workspace.new_run("bench")
    baseline = next(iter(files))
    with _written(_begin(run, "bench", baseline, quick_mode), workspace) as progress:
        for device in devices:
            target = open_target(device)
            progress.add_device(target.info, target.notes)
            candidates = [
                Candidate(
                    name, runtime, device.delegate, threads, path=path, model=model, error=error
                )
                for runtime, error in _all_runtimes(target)
                for threads in device.threads or benchmark.threads
                for name, (path, model) in files.items()
            ]
            progress.rows += progress.rows_of(
                target, candidates, benchmark, None, listener, workspace.runs / run
            )
    return progress.results()


def quick(benchmark: Benchmark) -> Benchmark:
    """Short enough for a look, too short for a claim."""
    return benchmark.model_copy(update=QUICK)


def _all_runtimes(target: Target) -> list[tuple[RuntimeInfo, str | None]]:
    return [(runtime, None) for runtime in target.runtimes] + list(target.missing)


def _candidates(
    plan: Plan, outcome: Outcome, context: Context, target: Target, threads: Sequence[int]
) -> list[Candidate]:
    found = []
    for runtime, missing in _all_runtimes(target):
        for count in threads:
            for variant, convert in plan.converted.items():
                candidate = Candidate(
                    variant,
                    runtime,
                    target.device.delegate,
                    count,
                    _dense_twin(context.pipeline, variant),
                )
                key = plan.verified.get((variant, runtime.name))
                error = missing or (outcome.errors.get(key) if key else None)
                if error or key is None:
                    found.append(replace(candidate, error=error or "was not planned"))
                    continue
                found.append(_verified(candidate, plan, context, key, convert))
    return found


def _dense_twin(pipeline: Pipeline, variant: str) -> str | None:
    own = pipeline.variants[variant]
    if own.sparsify is None:
        return None
    return next(
        (
            name
            for name, other in pipeline.variants.items()
            if other.sparsify is None and other.quantize.scheme == own.quantize.scheme
        ),
        None,
    )


def _verified(
    candidate: Candidate, plan: Plan, context: Context, key: str, convert: str
) -> Candidate:
    store = context.store
    verdict = read_json(store.path(key) / "verify.json")
    inputs = plan.stage(convert).inputs
    metrics = read_json(store.path(inputs.get("quantize", inputs["model"])) / "metrics.json")
    return replace(
        candidate,
        path=store.root / verdict["path"],
        model=ModelFile.model_validate(verdict["model"]),
        golden=store.path(convert) / "golden.npz",
        samples=store.path(plan.samples) / "samples.npz",
        tolerance=verdict["tolerance"],
        keras_accuracy=metrics["accuracy"],
        host_accuracy=verdict["accuracy"],
        agreement=verdict["agreement"],
        sample_count=verdict["samples"],
        notes=tuple(verdict["notes"]),
    )


@dataclass
class _Progress:
    """What a run has so far; written to results.json whatever happens."""

    begun: Results
    devices: list[DeviceInfo]
    rows: list[Row]
    gates: list[Any]
    notes: list[str]
    finished: bool = False

    def add_device(self, info: DeviceInfo, notes: Sequence[str]) -> None:
        self.devices.append(info)
        self.notes += notes

    def results(self) -> Results:
        return self.begun.model_copy(
            update={
                "devices": self.devices,
                "rows": self.rows,
                "gates": self.gates,
                "notes": self.notes,
                "finished": self.finished,
            }
        )

    def rows_of(
        self,
        target: Target,
        candidates: Sequence[Candidate],
        benchmark: Benchmark,
        pipeline: Pipeline | None,
        listener: told.Listener,
        folder: Path,
    ) -> list[Row]:
        """Measure on one device. An interrupt keeps the rows that are measured already."""
        job = build_job(f"{folder.name}-{target.device.name}", benchmark, candidates)
        events: list[Event] = []
        name = pipeline.name if pipeline else "bench"
        baseline = self.begun.baseline

        def rows() -> list[Row]:
            return build_rows(name, target.device.name, baseline, candidates, events)

        try:
            if job.entries:
                _measure(target, job, events, listener)
        except KeyboardInterrupt:
            self.rows += rows()
            raise
        except EdgesparseError as error:
            lost = str(error)
            return [
                row.model_copy(update={"error": lost}) if row.error == NOT_MEASURED else row
                for row in rows()
            ]
        return rows()


def _measure(target: Target, job: Job, events: list[Event], listener: told.Listener) -> None:
    label = f"benchmark on {target.device.name}"
    listener(told.StageStarted(label, 1, 1))
    total = len(job.entries) * (job.rounds + 1)
    done = 0

    def on_event(event: Event) -> None:
        nonlocal done
        events.append(event)
        if isinstance(event, Waiting):
            listener(told.Note(f"waiting: another job is measuring on {target.device.name}"))
        elif isinstance(event, Failed):
            done += job.rounds + 1 if event.round is None else job.rounds - event.round
        elif isinstance(event, Check | Round):
            done += 1
            text = f"{event.entry}"
            if isinstance(event, Round):
                text += f", round {event.round + 1}/{job.rounds}"
            listener(told.StageProgress(label, done / total, text))

    run_job(target.transport, job, on_event)
    listener(told.StageDone(label, 1, 1, 0.0, False))


def _begin(run: str, pipeline: str, baseline: str, quick_mode: bool) -> Results:
    return Results(
        run=run,
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        quick=quick_mode,
        host={"machine": platform.machine(), "system": platform.system()},
        versions=library_versions(),
        pipeline=pipeline,
        pipeline_digest="",
        baseline=baseline,
    )


def _pipeline_digest(pipeline: Pipeline) -> str:
    text = json.dumps(pipeline.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _written(begun: Results, workspace: Workspace) -> Iterator[_Progress]:
    progress = _Progress(begun, [], [], [], [])
    try:
        yield progress
        progress.finished = True
    finally:
        write_results(progress.results(), workspace.results_path(begun.run))
