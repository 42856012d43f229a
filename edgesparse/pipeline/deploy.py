"""A run: from a pipeline and devices to results."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgesparse.bench.job import EMULATED_GOLDEN_SAMPLES, Candidate, check_gates
from edgesparse.bench.results import Results
from edgesparse.devices import edgetpu
from edgesparse.pipeline import bench, candidates, fleet
from edgesparse.pipeline import progress as told
from edgesparse.pipeline.advice import advise
from edgesparse.pipeline.context import Context
from edgesparse.pipeline.execute import execute
from edgesparse.pipeline.fingerprints import digests, library_versions
from edgesparse.pipeline.plan import Plan, build_plan
from edgesparse.pipeline.probes import profiles
from edgesparse.pipeline.record import RunRecord, recorded
from edgesparse.pipeline.release import release_best
from edgesparse.pipeline.targets import Target, own_runtimes, this_machine
from edgesparse.pipeline.workspace import Workspace
from edgesparse.spec.device import Device
from edgesparse.spec.edgetpu import EdgeTpu
from edgesparse.spec.errors import UsageError, did_you_mean
from edgesparse.spec.load import Loaded
from edgesparse.spec.pipeline import Benchmark, Pipeline
from edgesparse.tflite.compatibility import Profile


def plan_for(
    loaded: Loaded[Pipeline],
    target: Target,
    known: Mapping[str, Profile],
    variants: Sequence[str] | None = None,
) -> Plan:
    """The plan of a pipeline for one device; `known` is what its runtimes do with sparse storage,
    by their names."""
    check_variants(loaded, variants)
    local = target.device.connect.local is not None
    tpu = target.device.tpu
    return build_plan(
        loaded.spec,
        digests(loaded),
        library_versions(),
        target.runtimes,
        known,
        target.device.agent_delegate,
        variants,
        machine="" if local else f"{target.host.machine} {target.host.cpu}",
        full_int8_only=tpu is not None,
        compiler=_compiler(tpu),
        clock=target.device.clock,
    )


def context_for(
    loaded: Loaded[Pipeline],
    target: Target,
    workspace: Workspace,
    run: str,
    known: Mapping[str, Profile],
    stop: threading.Event | None = None,
) -> Context:
    """What the stages of a plan for one device share."""
    device = target.device
    return Context(
        loaded,
        workspace.store,
        target.transport,
        run,
        host=None if device.connect.local is not None else this_machine(),
        host_runtimes=own_runtimes(),
        profiles=known,
        tpu=device.tpu,
        golden_samples=EMULATED_GOLDEN_SAMPLES if device.emulated else None,
        stop=stop,
    )


def _compiler(tpu: EdgeTpu | None) -> dict[str, Any] | None:
    """What the result of compiling depends on; None where nothing is compiled."""
    if tpu is None or tpu.compiler.none is not None:
        return None
    way = tpu.model_dump(mode="json", exclude_none=True, exclude={"library", "options", "compiler"})
    return {**way, "compiler": edgetpu.identify(tpu)}


def check_full_int8(
    loaded: Loaded[Pipeline], devices: Sequence[Device], variants: Sequence[str] | None
) -> None:
    """Raise UsageError where a device with an Edge TPU would have nothing to run."""
    chosen = [v for name, v in loaded.spec.variants.items() if variants is None or name in variants]
    if any(variant.quantize.scheme == "int8" for variant in chosen):
        return
    for device in devices:
        if device.tpu is not None:
            raise UsageError(
                f"{loaded.path}: device {device.name} runs full int8 only (delegate: edgetpu), and "
                "no variant to deploy is; add one with 'quantize: int8'"
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
    check_full_int8(loaded, devices, options.variants)
    first = [device for device in devices if device.name == options.canary]
    rest = [device for device in devices if device.name != options.canary]
    if options.canary is not None and not first:
        raise UsageError(f"--canary {options.canary}: no such --device in this command")
    with recorded(
        workspace,
        pipeline.name,
        pipeline.baseline_variant,
        devices,
        quick=options.quick,
        pipeline_digest=_pipeline_digest(pipeline),
    ) as record:
        run = _Run(loaded, workspace, fleet.locked(listener), options, record, threading.Event())
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
        return bench.quick(settings) if self.options.quick else settings


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
    known = profiles(target, run.workspace)
    plan = plan_for(run.loaded, target, known, run.options.variants)
    if any(stage.spec.get("compiler") == edgetpu.NO_COMPILER for stage in plan.stages):
        # Said now, not only after an hour of training.
        note = f"{device.name}: the Edge TPU's compiler does not run: {edgetpu.WHERE_TO_GET_IT}"
        run.listener(told.Note(note))
    left_out = [v for v in _chosen(run) if v not in plan.converted]
    if left_out:
        record.notes.append(
            f"{device.name}: {', '.join(left_out)} left out: the Edge TPU takes full int8 only"
        )
    context = context_for(run.loaded, target, run.workspace, record.begun.run, known, stop=run.stop)
    log = run.workspace.log_path(record.begun.run)
    try:
        advised = advise(plan, context, target, log, run.listener)
        for line in advised:  # Before training, and once more under the table.
            run.listener(told.Note(line))
        record.notes += advised
        errors = execute(plan.work, context, log, run.listener)
    finally:
        run.workspace.remember(run.pipeline.name, plan)
    threads = device.threads or run.benchmark.threads
    return plan, candidates.planned(plan, errors, context, target, threads)


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


def _pipeline_digest(pipeline: Pipeline) -> str:
    text = json.dumps(pipeline.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
