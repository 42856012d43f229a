"""The deploy command: from a pipeline and devices to results and releases."""

from __future__ import annotations

import hashlib
import json
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgesparse.commands import candidates
from edgesparse.commands.bench import shortened
from edgesparse.commands.exchange import with_tflite_models
from edgesparse.commands.fleet.delegates import built_meanwhile
from edgesparse.commands.fleet.parallel import for_each
from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.commands.fleet.target import Target
from edgesparse.commands.plan import check_full_int8, check_variants, executor_for, plan_for
from edgesparse.commands.prediction.auto_variants import left_out, useless_variants
from edgesparse.commands.prediction.chance_level import require_learned
from edgesparse.commands.prediction.predict import predict
from edgesparse.commands.results import first_rows
from edgesparse.commands.results.model_files import FOLDER, keep_models
from edgesparse.commands.results.record import RunRecord, recorded
from edgesparse.commands.results.release import release_best
from edgesparse.commands.results.training_details import provenance_of
from edgesparse.devices import edgetpu
from edgesparse.graph import events
from edgesparse.graph.digests import inputs_of
from edgesparse.graph.execution.executor import Cluster, Executor
from edgesparse.graph.execution.scheduler import execute_and_read
from edgesparse.graph.plan import Plan
from edgesparse.graph.workspace import Workspace
from edgesparse.measure.benchmark import Candidate
from edgesparse.measure.gates import check_gates
from edgesparse.measure.results import Results
from edgesparse.measure.rows import Row
from edgesparse.spec.code.run_inputs import Inputs
from edgesparse.spec.device import Device
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Benchmark, Pipeline
from edgesparse.spec.reading.load import Loaded, load_pipeline
from edgesparse.spec.safe.text import without_credentials
from edgesparse.stages.base.stage import Stage
from edgesparse.tflite.runtimes.compatibility import Profile

_SOURCE = 100_000
"""Characters of a pipeline's file that are kept in results: enough for any file written by hand."""


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
    """Create every variant, measure each on each device, release the best, and write results.json.

    Results are written even when the run is interrupted or a device fails; a variant or device that
    fails is a row with its error.

    Args:
        pipeline: a pipeline file, or one loaded by `load_pipeline`.
        devices: names of files in the project's devices/, paths, or Devices.
        variants: these only, and the baseline.
        quick: measure briefly; results are indicative only.
        benchmark: False ends with verified models.
        canary: the device to deploy to first; the others are skipped if it fails or misses a gate.
        force: continue where the dense model is at chance level.

    Raises:
        UsageError: a file or name is wrong; nothing was run.
        DeviceError: no device can be used.
    """
    loaded, fleet = load_pipeline(pipeline), project.devices(devices)
    check_variants(loaded, variants)
    check_full_int8(loaded, fleet, variants)
    loaded = with_tflite_models(project, loaded)
    first, rest = _by_canary(fleet, canary)
    workspace, cluster = project.workspace(loaded.spec.store), project.cluster()
    with recorded(
        workspace,
        loaded.spec.name,
        loaded.spec.baseline_variant,
        fleet,
        quick=quick,
        command=_command(loaded, fleet, variants, quick=quick, benchmark=benchmark, force=force),
        pipeline_digest=_pipeline_digest(loaded.spec),
        source=_source(loaded.path),
        mask=loaded.document.masked,
    ) as record:
        settings = shortened(loaded.spec.benchmark) if quick else loaded.spec.benchmark
        run = _Run(
            project, loaded, workspace, tuple(variants) if variants else None,
            settings if benchmark else None, record, threading.Event(), cluster, force,
        )  # fmt: skip
        try:
            _deploy_all(run, first, rest)
        except KeyboardInterrupt:
            with suppress(OSError):  # The terminal may have been closed.
                run.listener(events.RowsReady(record.results()))
            raise
    return record.results()


def _by_canary(fleet: Sequence[Device], canary: str | None) -> tuple[list[Device], list[Device]]:
    """Return the canary, if there is one, and the other devices. Raises UsageError."""
    first = [device for device in fleet if device.name == canary]
    if canary is not None and not first:
        raise UsageError(f"--canary {canary}: no such --device in this command")
    return first, [device for device in fleet if device.name != canary]


@dataclass(frozen=True)
class _Run:
    """State shared by the parts of one `deploy`."""

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
        return self.workspace.log_path(self.record.initial.run)

    @property
    def chosen(self) -> list[str]:
        return [v for v in self.pipeline.variants if self.variants is None or v in self.variants]


def _deploy_all(run: _Run, first: Sequence[Device], rest: Sequence[Device]) -> None:
    """Deploy to the canary, if there is one, and then to the others if it did not fail."""
    for devices in filter(None, (first, rest)):
        try:
            _deploy_to(run, devices, alone=len([*first, *rest]) == 1)
        except EdgesparseError as error:  # None of them can be reached.
            if not (first and rest):
                raise
            for device in devices:
                run.record.add_failed_device(device, run.chosen, str(error))
        results = run.record.results()
        if rest and devices is first and (results.failed or not results.gates_met):
            names = ", ".join(device.name for device in rest)
            run.record.notes.append(f"canary {first[0].name} failed; skipped {names}")
            return


def _deploy_to(run: _Run, devices: Sequence[Device], *, alone: bool) -> None:
    """Create and verify models device by device, then measure on all devices in parallel."""
    record, benchmark = run.record, run.benchmark
    # Models are created device by device, since training takes every core; what devices share is
    # created once.
    with run.project.connect(devices, run.stop) as fleet:
        for device, error in fleet.failed:
            record.add_failed_device(device, run.chosen, error)
        work = []
        for target in fleet.targets:
            with record.isolated(target.device, run.chosen, run.log, reraise=alone):
                work.append((target, *_create_models(run, target)))
        if benchmark is None:
            for target, _, models in work:
                record.add_rows(target, models, None)
            return
        for_each(lambda item: _measure_and_release(run, benchmark, *item), work, run.stop)


def _create_models(run: _Run, target: Target) -> tuple[Plan, list[Candidate]]:
    """Execute the stages up to verified models for one device."""
    record, device = run.record, target.device
    record.add_device(target.info, target.notes)
    for note in target.notes:
        run.listener(events.Note(note))
    runtime_profiles = profiles(target, run.workspace)
    inputs = inputs_of(run.loaded)
    plan = plan_for(run.loaded, target, runtime_profiles, inputs, run.variants)
    if any(stage.spec.get("compiler") == edgetpu.NO_COMPILER for stage in plan.stages):
        # Reported before an hour of training, too.
        note = f"{device.name}: the Edge TPU compiler is not available: {edgetpu.WHERE_TO_GET_IT}"
        run.listener(events.Note(note))
    others = [v for v in run.chosen if v not in plan.converted]
    if others:
        record.notes.append(
            f"{device.name}: {', '.join(others)} left out: the Edge TPU requires full int8"
        )
    threads = device.threads or (run.benchmark or run.pipeline.benchmark).threads
    opened = executor_for(
        run.loaded, target, run.workspace.store, run.project.workers(run.log),
        record.initial.run, runtime_profiles, inputs, run.stop, run.cluster,
    )  # fmt: skip
    with opened as executor:
        try:
            plan = _predicted(run, target, plan, executor, runtime_profiles, inputs)

            def candidates_of(part: Plan, errors: Mapping[str, str]) -> list[Candidate]:
                executor.store.path(plan.samples)
                return candidates.planned(part, errors, executor, target, threads)

            check = _checks(run, target, plan, executor, candidates_of)
            failed = _first_rows(run, target, plan, executor, check, candidates_of)

            def read(errors: dict[str, str]) -> list[Candidate]:
                models = candidates_of(plan, errors)
                _record_provenance(record, plan, executor)
                return models

            # Only now: a compiler beside the first rows' measurement would slow them down.
            with built_meanwhile(target):
                models = execute_and_read(plan.work, executor, run.listener, read, check, failed)
        # After an interrupt, too: the next plan is compared with what this run executed.
        finally:
            try:
                run.workspace.remember(run.loaded, plan)
            except OSError as error:
                record.notes.append(f"the next plan can be outdated: {error.strerror}")
        with suppress(OSError, EdgesparseError):  # Only for convenience: the store has the models.
            keep_models(_models_folder(run, device), executor.store.path(plan.samples), models)
        candidates.try_again(plan, executor.store)
        return plan, models


def _predicted(
    run: _Run,
    target: Target,
    plan: Plan,
    executor: Executor,
    runtime_profiles: Mapping[str, Profile],
    inputs: Inputs,
) -> Plan:
    """Predict what will not work or pay, and return the plan without variants of `auto` that are
    useless on the device."""
    device = target.device
    predictions = predict(plan, executor, target, run.listener)
    for prediction in predictions:
        if prediction.topic != "task" and prediction.message:
            run.listener(events.Note(prediction.message))
    if run.pipeline.has_auto_variants and run.variants is None:
        useless = useless_variants(plan, executor)
        remaining = [prediction.without(useless) for prediction in predictions]
        omitted = left_out(useless, device.name)
        predictions = [*(p for p in remaining if p is not None), *omitted]
        for prediction in omitted:
            run.listener(events.Note(prediction.message))
        useful = [name for name in plan.converted if name not in useless]
        if useless:
            plan = plan_for(run.loaded, target, runtime_profiles, inputs, useful)
    with run.record.lock:
        run.record.predictions[device.name] = predictions
    return plan


def _checks(
    run: _Run,
    target: Target,
    plan: Plan,
    executor: Executor,
    candidates_of: first_rows.CandidatesOf,
) -> Callable[[Stage], None]:
    """Return what to call after each stage: a dense model at chance level ends the run, and the
    rows of a variant that is ready are announced."""
    shared = (plan, run.record, target, executor.store, run.listener, candidates_of)
    checks = [first_rows.announce_ready(*shared)] if run.benchmark is not None else []
    if not run.force:
        checks.append(require_learned(plan, executor, run.listener))

    def check(stage: Stage) -> None:
        for part in checks:
            part(stage)

    return check


def _first_rows(
    run: _Run,
    target: Target,
    plan: Plan,
    executor: Executor,
    check: Callable[[Stage], None],
    candidates_of: first_rows.CandidatesOf,
) -> dict[str, str]:
    """Create what needs no training of its own, measure it briefly and show the rows. No training
    runs meanwhile, which would slow this machine's own times down.

    Returns:
        Errors by the key of a stage that failed.
    """
    first = first_rows.untrained_part(plan, run.pipeline, executor.store)
    # An emulated device would need minutes.
    if first is None or run.benchmark is None or target.device.emulated:
        return {}

    def read(errors: dict[str, str]) -> tuple[dict[str, str], list[Candidate]]:
        return errors, candidates_of(first, errors)

    failed, models = execute_and_read(first.work, executor, run.listener, read, check)
    run.record.measure_first(target, models, run.listener, run.stop)
    first_rows.announce_first(run.record, target.device.name, run.listener)
    return failed


def _record_provenance(record: RunRecord, plan: Plan, executor: Executor) -> None:
    """Add the provenance of the variants; a failure is a note."""
    try:
        record.provenance = record.provenance.merge(provenance_of(plan, executor.store))
    except (ValueError, LookupError, TypeError, OSError) as error:
        with record.lock:
            record.notes.append(f"provenance is incomplete: {error}"[:300])


def _models_folder(run: _Run, device: Device) -> Path:
    """Folder for a device's models: the run's for its first device, else one per device, since
    storage differs by device."""
    folder = run.log.with_name(FOLDER)
    first = run.record.order[0] if run.record.order else device.name
    return folder if device.name == first else folder / device.name


def _measure_and_release(
    run: _Run, benchmark: Benchmark, target: Target, plan: Plan, models: list[Candidate]
) -> None:
    """Measure the models on one device, and release the best variant there."""
    record = run.record
    with record.isolated(target.device, run.chosen, run.log):
        models = candidates.deliverable(models, target)
        record.measure(target, models, benchmark, run.listener, run.stop)
        rows = record.rows_of(target.device.name)
        gates = check_gates(run.pipeline.gates, rows)
        with record.lock:
            record.gates += gates
            record.notes += _baseline_notes(target.device.name, record.initial.baseline, rows)
        default = "none" if target.device.connect.local is not None else "auto"
        if (run.pipeline.release or default) != "none" and not run.stop.is_set():
            samples = run.workspace.store.path(plan.samples)
            release_best(run.pipeline, record, run.listener, run.stop, target, samples, models)


def _baseline_notes(device: str, baseline: str, rows: Sequence[Row]) -> list[str]:
    """Warn where the baseline is at chance level: drops against it mean nothing."""
    if any(r.variant == baseline and r.score is not None and r.score.at_chance for r in rows):
        return [
            f"{device}: the baseline {baseline} is at chance level, so drops against it mean "
            "nothing; check data, loss and training"
        ]
    return []


def _source(path: Path) -> list[str]:
    with suppress(OSError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8")[:_SOURCE]
        return without_credentials(text).split("\n")
    return []


def _command(
    loaded: Loaded[Pipeline],
    devices: Sequence[Device],
    variants: Sequence[str] | None,
    *,
    quick: bool,
    benchmark: bool,
    force: bool,
) -> str:
    """Command line that repeats the run."""
    path = loaded.path
    with suppress(ValueError):
        path = path.absolute().relative_to(Path.cwd())
    words = ["edgesparse", "deploy" if benchmark else "run", str(path)]
    if benchmark:
        words += [word for device in devices for word in ("--device", device.option)]
    words += [word for variant in variants or () for word in ("--variant", variant)]
    return shlex.join([*words, *["--quick"] * quick, *["--force"] * force])


def _pipeline_digest(pipeline: Pipeline) -> str:
    shaping = pipeline.model_dump(mode="json", exclude={"store", "tracking"})
    text = json.dumps(shaping, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
