"""Runs: from a pipeline and devices, or from ready models, to results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgesparse.bench.job import QUICK, Candidate, check_gates
from edgesparse.bench.results import ModelFile, Results
from edgesparse.pipeline import progress as told
from edgesparse.pipeline.execute import execute
from edgesparse.pipeline.fingerprints import digests, library_versions
from edgesparse.pipeline.plan import Plan, build_plan
from edgesparse.pipeline.record import recorded
from edgesparse.pipeline.stages import Context, model_file, read_json
from edgesparse.pipeline.targets import Target, open_target
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
    return build_plan(
        loaded.spec,
        digests(loaded),
        library_versions(),
        target.runtimes,
        target.device.delegate,
        variants,
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
    check_variants(loaded, options.variants)
    benchmark = quick(pipeline.benchmark) if options.quick else pipeline.benchmark
    with recorded(
        workspace,
        pipeline.name,
        pipeline.baseline_variant,
        quick=options.quick,
        pipeline_digest=_pipeline_digest(pipeline),
    ) as record:
        run = record.begun.run
        for device in devices:
            target = open_target(device)
            record.add_device(target.info, target.notes)
            for note in target.notes:
                listener(told.Note(note))
            plan = plan_for(loaded, target, options.variants)
            context = Context(loaded, workspace.store, target.transport, run)
            try:
                errors = execute(plan, context, workspace.log_path(run), listener)
            finally:
                workspace.remember(pipeline.name, plan)
            threads = device.threads or benchmark.threads
            candidates = _candidates(plan, errors, context, target, threads)
            if options.benchmark:
                record.measure(target, candidates, benchmark, listener)
            else:
                record.add_rows(target, candidates, None)
        if options.benchmark:
            record.gates = check_gates(pipeline.gates, record.rows)
    return record.results()


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
    with recorded(workspace, "bench", baseline, quick=quick_mode) as record:
        for device in devices:
            target = open_target(device)
            record.add_device(target.info, target.notes)
            candidates = [
                Candidate(
                    name, runtime, device.delegate, threads, path=path, model=model, error=error
                )
                for runtime, error in target.all_runtimes
                for threads in device.threads or benchmark.threads
                for name, (path, model) in files.items()
            ]
            record.measure(target, candidates, benchmark, listener)
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
