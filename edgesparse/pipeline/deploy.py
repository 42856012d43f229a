"""Runs: from a pipeline and devices, or from ready models, to results."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgesparse.bench.job import EMULATED_GOLDEN_SAMPLES, QUICK, Candidate, check_gates
from edgesparse.bench.results import ModelFile, Results
from edgesparse.pipeline import fleet
from edgesparse.pipeline import progress as told
from edgesparse.pipeline.execute import execute
from edgesparse.pipeline.fingerprints import digests, library_versions
from edgesparse.pipeline.plan import Plan, build_plan
from edgesparse.pipeline.record import RunRecord, recorded
from edgesparse.pipeline.release import release_best
from edgesparse.pipeline.stages import Context, model_file, read_json
from edgesparse.pipeline.targets import Target, own_runtimes, this_machine
from edgesparse.pipeline.workspace import Workspace
from edgesparse.spec.device import Device
from edgesparse.spec.errors import UsageError, did_you_mean
from edgesparse.spec.load import Loaded
from edgesparse.spec.pipeline import Benchmark, Pipeline
from edgesparse.tflite.verify import limits


def plan_for(
    loaded: Loaded[Pipeline], target: Target, variants: Sequence[str] | None = None
) -> Plan:
    """The plan of a pipeline for one device."""
    check_variants(loaded, variants)
    local = target.device.connect.local is not None
    return build_plan(
        loaded.spec,
        digests(loaded),
        library_versions(),
        target.runtimes,
        target.device.delegate,
        variants,
        machine="" if local else f"{target.host.machine} {target.host.cpu}",
    )


def check_variants(loaded: Loaded[Pipeline], variants: Sequence[str] | None) -> None:
    """Raise UsageError for a variant that the pipeline does not have."""
    known = loaded.spec.variants
    for name in variants or ():
        if name not in known:
            raise UsageError(f"{loaded.path}: no variant {name!r}{did_you_mean(name, known)}")


@dataclass(frozen=True)
class Options:
    """What a command adds to the files."""

    variants: tuple[str, ...] | None = None
    quick: bool = False
    benchmark: bool = True
    """False: up to verified models."""
    canary: str | None = None
    """The device that goes first; the others follow only when all is well there."""


def deploy(
    loaded: Loaded[Pipeline],
    devices: Sequence[Device],
    workspace: Workspace,
    listener: told.Listener,
    options: Options,
) -> Results:
    """Make every variant, measure each on each device, release the best, and write results.json.

    What is finished is written even when the run is interrupted or a device fails.
    """
    pipeline = loaded.spec
    check_variants(loaded, options.variants)
    with recorded(
        workspace,
        pipeline.name,
        pipeline.baseline_variant,
        quick=options.quick,
        pipeline_digest=_pipeline_digest(pipeline),
    ) as record:
        run = _Run(loaded, workspace, fleet.locked(listener), options, record, threading.Event())
        first = [device for device in devices if device.name == options.canary]
        if options.canary is not None and not first:
            raise UsageError(f"--canary {options.canary}: no such --device in this command")
        rest = [device for device in devices if device.name != options.canary]
        if first:
            _wave(run, first)
            if rest and not (record.gates_met and all(r.status == "ok" for r in record.rows)):
                names = ", ".join(device.name for device in rest)
                record.notes.append(
                    f"canary {options.canary} is not well: nothing was deployed to {names}"
                )
                return record.results()
        if rest:
            _wave(run, rest)
    return record.results()


@dataclass(frozen=True)
class _Run:
    """What every part of one `deploy` shares."""

    loaded: Loaded[Pipeline]
    workspace: Workspace
    listener: told.Listener
    options: Options
    record: RunRecord
    stop: threading.Event

    @property
    def pipeline(self) -> Pipeline:
        return self.loaded.spec

    @property
    def benchmark(self) -> Benchmark:
        settings = self.pipeline.benchmark
        return quick(settings) if self.options.quick else settings


def _wave(run: _Run, devices: Sequence[Device]) -> None:
    """Make and verify models for these devices one after another, then use all devices at once."""
    record = run.record
    with fleet.opened(devices, run.listener, run.stop) as opened:
        for device, error in opened.dead:
            record.add_dead(device, _chosen(run), error)
        work = [(target, *_make(run, target)) for target in opened.targets]
        if not run.options.benchmark:
            for target, _, candidates in work:
                record.add_rows(target, candidates, None)
            return
        fleet.at_once(lambda item: _use(run, *item), work, run.stop)


def _chosen(run: _Run) -> list[str]:
    wanted = run.options.variants
    return [v for v in run.pipeline.variants if wanted is None or v in wanted]


def _make(run: _Run, target: Target) -> tuple[Plan, list[Candidate]]:
    """Carry out the stages up to verified models for one device."""
    record, device = run.record, target.device
    record.add_device(target.info, target.notes)
    for note in target.notes:
        run.listener(told.Note(note))
    plan = plan_for(run.loaded, target, run.options.variants)
    context = Context(
        run.loaded,
        run.workspace.store,
        target.transport,
        record.begun.run,
        host=None if device.connect.local is not None else this_machine(),
        host_runtimes=own_runtimes(),
        golden_samples=EMULATED_GOLDEN_SAMPLES if device.emulated else None,
        stop=run.stop,
    )
    try:
        errors = execute(plan, context, run.workspace.log_path(record.begun.run), run.listener)
    finally:
        run.workspace.remember(run.pipeline.name, plan)
    threads = device.threads or run.benchmark.threads
    return plan, _candidates(plan, errors, context, target, threads)


def _use(run: _Run, target: Target, plan: Plan, candidates: list[Candidate]) -> None:
    """Measure on one device, and release the best variant there."""
    record = run.record
    record.measure(target, candidates, run.benchmark, run.listener, run.stop)
    rows = record.rows_of(target.device.name)
    gates = check_gates(run.pipeline.gates, rows)
    with record.lock:
        record.gates += gates
    if run.pipeline.release != "none" and not run.stop.is_set():
        labels = run.workspace.store.path(plan.samples) / "labels.json"
        release_best(run.pipeline, record, run.listener, run.stop, target, labels, candidates)


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
    baseline = next(iter(files))
    stop = threading.Event()
    tell = fleet.locked(listener)
    with recorded(workspace, "bench", baseline, quick=quick_mode) as record:

        def measure(target: Target) -> None:
            device = target.device
            candidates = [
                Candidate(
                    name,
                    runtime,
                    device.delegate,
                    threads,
                    path=path,
                    model=model,
                    error=error,
                    clock=device.clock,
                )
                for runtime, error in target.all_runtimes
                for threads in device.threads or benchmark.threads
                for name, (path, model) in files.items()
            ]
            record.measure(target, candidates, benchmark, tell, stop)

        with fleet.opened(devices, tell, stop) as opened:
            for device, error in opened.dead:
                record.add_dead(device, list(files), error)
            for target in opened.targets:
                record.add_device(target.info, target.notes)
            fleet.at_once(measure, opened.targets, stop)
    return record.results()


def quick(benchmark: Benchmark) -> Benchmark:
    """Short enough for a look, too short for a claim."""
    return benchmark.model_copy(update=QUICK)


def _candidates(
    plan: Plan, errors: Mapping[str, str], context: Context, target: Target, threads: Sequence[int]
) -> list[Candidate]:
    found = []
    for runtime, missing in target.all_runtimes:
        for count in threads:
            for variant, convert in plan.converted.items():
                candidate = Candidate(
                    variant,
                    runtime,
                    target.device.delegate,
                    count,
                    _dense_twin(context.pipeline, variant),
                    clock=target.device.clock,
                    on_host=target.device.emulated,
                )
                key = plan.verified.get((variant, runtime.name))
                error = missing or (errors.get(key) if key else None)
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
        limits=limits(
            context.pipeline.variants[candidate.variant].quantize, context.pipeline.verify
        ),
        keras_accuracy=metrics["accuracy"],
        host_accuracy=verdict["accuracy"],
        agreement=verdict["agreement"],
        sample_count=verdict["samples"],
        notes=tuple(verdict["notes"]),
    )


def _pipeline_digest(pipeline: Pipeline) -> str:
    text = json.dumps(pipeline.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
