"""A run: from a pipeline and devices to results."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edgesparse.commands import candidates
from edgesparse.commands.bench import shortened
from edgesparse.commands.fleet.connect import Target
from edgesparse.commands.fleet.parallel import at_once
from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.commands.plan import check_full_int8, check_variants, executor_for, plan_for
from edgesparse.commands.prediction.auto_variants import left_out
from edgesparse.commands.prediction.chance_level import require_learned
from edgesparse.commands.prediction.predict import advise
from edgesparse.commands.results.models import FOLDER, keep_models
from edgesparse.commands.results.provenance import provenance_of
from edgesparse.commands.results.record import RunRecord, recorded
from edgesparse.commands.results.release import release_best
from edgesparse.devices import edgetpu
from edgesparse.graph import events
from edgesparse.graph.execution.executor import Cluster, Executor
from edgesparse.graph.execution.scheduler import execute
from edgesparse.graph.fingerprints import inputs_of
from edgesparse.graph.plan import Plan
from edgesparse.graph.workspace import Workspace
from edgesparse.measure.gates import check_gates
from edgesparse.measure.job import Candidate
from edgesparse.measure.results import Results
from edgesparse.measure.rows import Row
from edgesparse.spec.device import Device
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Benchmark, Pipeline
from edgesparse.spec.reading.load import Loaded, load_pipeline
from edgesparse.tflite.runtimes.compatibility import Profile

_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s@]*@")
_SOURCE = 100_000
"""So many characters of a pipeline's file are kept with the results."""


def deploy(
    project: Resources,
    pipeline: str | Path | Loaded[Pipeline],
    devices: DeviceName | Sequence[DeviceName] = ("local",),
    *,
    variants: Sequence[str] | None = None,
    quick: bool = False,
    benchmark: bool = True,
    canary: str | None = None,
    force: bool = False,
) -> Results:
    """Make every variant, measure each on each device, release the best, and write results.json.

    What is finished is written even when the run is interrupted or a device fails; a variant or
    device that fails is a row with its error.

    Args:
        pipeline: a pipeline file, or what `load_pipeline` made of one.
        devices: names of files in the project's devices/, paths, or Devices.
        variants: these only, and the baseline.
        quick: measure briefly; the result is labelled so.
        benchmark: False ends with verified models.
        canary: the device that goes first; the others follow only when all is well there.
        force: go on where the dense model is at chance level.

    Raises:
        UsageError: a file or name is wrong; nothing was run.
        DeviceError: not one device can be used.
    """
    loaded, fleet = load_pipeline(pipeline), project.devices(devices)
    check_variants(loaded, variants)
    check_full_int8(loaded, fleet, variants)
    first = [device for device in fleet if device.name == canary]
    rest = [device for device in fleet if device.name != canary]
    if canary is not None and not first:
        raise UsageError(f"--canary {canary}: no such --device in this command")
    workspace, cluster = project.workspace(loaded.spec.store), project.cluster()
    with recorded(
        workspace,
        loaded.spec.name,
        loaded.spec.baseline_variant,
        fleet,
        quick=quick,
        command=_command(loaded, fleet, variants, quick=quick, benchmark=benchmark),
        pipeline_digest=_pipeline_digest(loaded.spec),
        source=_source(loaded.path),
    ) as record:
        settings = loaded.spec.benchmark
        run = _Run(
            project,
            loaded,
            workspace,
            tuple(variants) if variants else None,
            (shortened(settings) if quick else settings) if benchmark else None,
            record,
            threading.Event(),
            cluster,
            force,
        )
        if first:
            _wave(run, first)
            so_far = record.results()
            if rest and (so_far.failed or not so_far.gates_met):
                names = ", ".join(device.name for device in rest)
                record.notes.append(f"canary {canary} failed; skipped {names}")
                return record.results()
        if rest:
            _wave(run, rest)
    return record.results()


@dataclass(frozen=True)
class _Run:
    """What every part of one `deploy` shares."""

    project: Resources
    loaded: Loaded[Pipeline]
    workspace: Workspace
    variants: tuple[str, ...] | None
    benchmark: Benchmark | None
    record: RunRecord
    stop: threading.Event
    cluster: Cluster | None
    force: bool

    @property
    def listener(self) -> events.Listener:
        return self.project.listener

    @property
    def pipeline(self) -> Pipeline:
        return self.loaded.spec

    @property
    def log(self) -> Path:
        return self.workspace.log_path(self.record.begun.run)

    @property
    def chosen(self) -> list[str]:
        wanted = self.variants
        return [v for v in self.pipeline.variants if wanted is None or v in wanted]


def _wave(run: _Run, devices: Sequence[Device]) -> None:
    """Make and verify models for these devices one after another, then use all devices at once."""
    record, benchmark = run.record, run.benchmark
    # All connect at once: the slowest board, not their sum, is waited for. Models are made one
    # device after another, since training takes every core; what devices share is made once.
    with run.project.connect(devices, run.stop) as fleet:
        for device, error in fleet.dead:
            record.add_dead(device, run.chosen, error)
        work = []
        for target in fleet.targets:
            with record.alone(target.device, run.chosen, run.log, one=len(devices) == 1):
                work.append((target, *_make(run, target)))
        if benchmark is None:
            for target, _, found in work:
                record.add_rows(target, found, None)
            return
        # Measuring takes nothing of this machine, unless it is the device itself.
        at_once(lambda item: _use(run, benchmark, *item), work, run.stop)


def _make(run: _Run, target: Target) -> tuple[Plan, list[Candidate]]:
    """Carry out the stages up to verified models for one device."""
    record, device = run.record, target.device
    record.add_device(target.info, target.notes)
    for note in target.notes:
        run.listener(events.Note(note))
    known = profiles(target, run.workspace)
    inputs = inputs_of(run.loaded)
    plan = plan_for(run.loaded, target, known, inputs, run.variants)
    if any(stage.spec.get("compiler") == edgetpu.NO_COMPILER for stage in plan.stages):
        # Said now, not only after an hour of training.
        note = f"{device.name}: the Edge TPU's compiler does not run: {edgetpu.WHERE_TO_GET_IT}"
        run.listener(events.Note(note))
    others = [v for v in run.chosen if v not in plan.converted]
    if others:
        record.notes.append(
            f"{device.name}: {', '.join(others)} left out: the Edge TPU takes full int8 only"
        )
    threads = device.threads or (run.benchmark or run.pipeline.benchmark).threads
    with executor_for(
        run.loaded,
        target,
        run.workspace.store,
        run.project.workers(run.log),
        record.begun.run,
        known,
        inputs,
        run.stop,
        run.cluster,
    ) as executor:
        try:
            advised = advise(plan, executor, target, run.listener)
            for one in advised:  # Before training, and under the table what came true.
                if one.kind != "said":
                    run.listener(events.Note(one.line))
            with record.lock:
                record.foreseen[device.name] = advised
            if run.pipeline.has_auto_variants and run.variants is None:
                plan = _worth_it(run, target, known, plan, executor)
            check = () if run.force else (require_learned(plan, executor, run.listener),)
            errors = execute(plan.work, executor, run.listener, *check)
            _keep_made(record, plan, executor)
        # Also of a run that was interrupted: what it did is what the next plan is compared with.
        finally:
            try:
                run.workspace.remember(run.loaded, plan)
            except OSError as error:
                record.notes.append(f"what the next plan says may be old: {error.strerror}")
        found = candidates.planned(plan, errors, executor, target, threads)
        with suppress(OSError, EdgesparseError):  # A help, and no more: the store has them.
            keep_models(_models_folder(run, device), executor.store.path(plan.samples), found)
        return plan, found


def _keep_made(record: RunRecord, plan: Plan, executor: Executor) -> None:
    """How the variants were made; a run is none the worse where that cannot be told."""
    try:
        record.provenance = record.provenance.merge(provenance_of(plan, executor.store))
    except (ValueError, LookupError, TypeError, OSError) as error:
        with record.lock:
            record.notes.append(f"how the variants were made cannot be told: {error}"[:300])


def _worth_it(
    run: _Run, target: Target, known: Mapping[str, Profile], plan: Plan, executor: Executor
) -> Plan:
    """The plan without variants that will gain nothing on this device, which is said."""
    left = left_out(plan, executor)
    for name, why in left.items():
        note = f"{target.device.name}: {name} left out: {why}"
        run.listener(events.Note(note))
        with run.record.lock:
            run.record.notes.append(note)
    # What was said of them is of no interest any more.
    with run.record.lock:
        said = run.record.foreseen[target.device.name]
        run.record.foreseen[target.device.name] = [
            replace(one, variants=still)
            for one in said
            if (still := tuple(v for v in one.variants if v not in left)) or not one.variants
        ]
    kept = [name for name in plan.converted if name not in left]
    inputs = executor.context.inputs
    return plan_for(run.loaded, target, known, inputs, kept) if left else plan


def _models_folder(run: _Run, device: Device) -> Path:
    """The first device's models lie in the run's folder, and each other one's in its own: storage
    differs by device."""
    folder = run.log.with_name(FOLDER)
    first = run.record.order[0] if run.record.order else device.name
    return folder if device.name == first else folder / device.name


def _use(
    run: _Run, benchmark: Benchmark, target: Target, plan: Plan, found: list[Candidate]
) -> None:
    """Measure on one device, and release the best variant there."""
    record = run.record
    with record.alone(target.device, run.chosen, run.log):
        record.measure(target, found, benchmark, run.listener, run.stop)
        rows = record.rows_of(target.device.name)
        gates = check_gates(run.pipeline.gates, rows)
        with record.lock:
            record.gates += gates
            record.notes += _baseline_notes(target.device.name, record.begun.baseline, rows)
        if run.pipeline.release != "none" and not run.stop.is_set():
            samples = run.workspace.store.path(plan.samples)
            release_best(run.pipeline, record, run.listener, run.stop, target, samples, found)


def _baseline_notes(device: str, baseline: str, rows: Sequence[Row]) -> list[str]:
    """Where the baseline has learned nothing, nothing can be lost against it."""
    if any(r.variant == baseline and r.score is not None and r.score.at_chance for r in rows):
        return [
            f"{device}: the baseline {baseline} is at chance level: what the others keep of that "
            "says nothing; look at data, loss and training"
        ]
    return []


def _source(path: Path) -> list[str]:
    with suppress(OSError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8")[:_SOURCE]
        return _PASSWORD.sub("://***@", text).split("\n")  # Of a URL.
    return []


def _command(
    loaded: Loaded[Pipeline],
    devices: Sequence[Device],
    variants: Sequence[str] | None,
    *,
    quick: bool,
    benchmark: bool,
) -> str:
    """What to type for the same."""
    path = loaded.path
    with suppress(ValueError):
        path = path.absolute().relative_to(Path.cwd())
    words = ["edgesparse", "deploy" if benchmark else "run", str(path)]
    if benchmark:
        words += [word for device in devices for word in ("--device", device.name)]
    words += [word for variant in variants or () for word in ("--variant", variant)]
    return shlex.join([*words, *(["--quick"] if quick else [])])


def _pipeline_digest(pipeline: Pipeline) -> str:
    shaping = pipeline.model_dump(mode="json", exclude={"store", "tracking"})
    text = json.dumps(shaping, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
