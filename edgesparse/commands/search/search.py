"""The search command: search for variants of a pipeline on the Pareto front of its objectives."""

from __future__ import annotations

import hashlib
import json
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from edgesparse.commands import candidates
from edgesparse.commands.bench import shortened
from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.commands.fleet.target import Target
from edgesparse.commands.plan import executor_for, plan_for
from edgesparse.commands.prediction.chance_level import require_learned
from edgesparse.commands.results.record import RunRecord, recorded
from edgesparse.commands.search.study import Study, TrialRequest, check, unusable
from edgesparse.devices.agent.events import Answers, Check, Event, Failed, Round
from edgesparse.graph import events, open_runs
from edgesparse.graph.digests import inputs_of
from edgesparse.graph.execution.executor import Cluster
from edgesparse.graph.execution.pool import Workers
from edgesparse.graph.execution.scheduler import execute_and_read
from edgesparse.graph.workspace import Workspace
from edgesparse.measure.benchmark import Candidate, build_rows
from edgesparse.measure.rows import Row, metric_of
from edgesparse.measure.trials import SearchResult, Trial, direction_of, violation
from edgesparse.spec.device import Device
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Benchmark, Pipeline, Variant
from edgesparse.spec.reading.load import Loaded, load_pipeline
from edgesparse.spec.safe.files import replace_json, replace_text
from edgesparse.spec.safe.text import listed
from edgesparse.spec.search import Constraint, Search
from edgesparse.tflite.runtimes.compatibility import Profile

STUDY, REFERENCES, FRONT, RESULT = "study.db", "references.json", "front.yaml", "search.json"
MISSING = (
    "'search' is missing, which defines dimensions and objectives; see 'edgesparse docs search'"
)


def search(
    project: Resources,
    pipeline: str | Path | Loaded[Pipeline],
    device: DeviceName = "local",
    *,
    trials: int = 50,
    quick: bool = False,
    force: bool = False,
) -> tuple[SearchResult, Path]:
    """Search for variants as the pipeline's `search` defines.

    The same call resumes an earlier search, and several processes can work on it. The pipeline's
    own variants are measured first, for comparison.

    Args:
        device: name of a file in the project's devices/, a path, or a Device.
        trials: total trials, including earlier calls.
        quick: measure briefly.
        force: continue where the dense model is at chance level.

    Returns:
        The trials with their front, and the folder of the study and of the front as YAML.

    Raises:
        UsageError: the pipeline has no search, or a file or name is wrong; nothing was run.
        DeviceError: the device cannot be used.
        EdgesparseError: the dense model is at chance level.
    """
    loaded = load_pipeline(pipeline)
    search = loaded.spec.search
    if search is None:
        raise UsageError(f"{loaded.path}: {MISSING}")
    target_device = project.device(device)
    workspace, cluster = project.workspace(loaded.spec.store), project.cluster()
    settings = shortened(loaded.spec.benchmark) if quick else loaded.spec.benchmark
    folder = workspace.folder / "searches" / _name(loaded.spec, target_device, settings)
    command = ["edgesparse", "search", str(loaded.path), "--device", target_device.option]
    command += ["--trials", str(trials), *["--quick"] * quick, *["--force"] * force]
    check(folder / STUDY)
    references = _read_references(folder / REFERENCES)
    stop = threading.Event()
    with recorded(
        workspace,
        loaded.spec.name,
        loaded.spec.baseline_variant,
        [target_device],
        quick=quick,
        command=shlex.join(command),
        mask=loaded.document.masked,
    ) as record:
        workers = project.workers(workspace.log_path(record.initial.run))
        with project.connect([target_device], stop) as fleet:
            (target,) = fleet.targets
            record.add_device(target.info, target.notes)
            bench = _TrialRunner(
                loaded, search, target, profiles(target, workspace), workspace, workers,
                record, settings, project.listener, stop, cluster, force,
            )  # fmt: skip
            return _search(bench, folder, trials, references), folder


@dataclass
class _TrialRunner:
    """Creates and measures variants of a search, beside the baseline."""

    loaded: Loaded[Pipeline]
    search: Search
    target: Target
    profiles: Mapping[str, Profile]
    workspace: Workspace
    workers: Workers
    record: RunRecord
    settings: Benchmark
    listener: events.Listener
    stop: threading.Event
    cluster: Cluster | None
    force: bool
    baseline_events: list[Event] = field(default_factory=list)
    parts: int = 0
    pruned: dict[str, Row] = field(default_factory=dict)
    """Variants that were not measured, since this machine's evaluation or the file violates a
    constraint already."""

    def rows(self, variants: Mapping[str, Variant], *, first: bool = False) -> list[Row]:
        """Create and measure variants beside the baseline.

        Returns:
            The variants' rows, and with `first` the baseline's.
        """
        base = self.loaded.spec.baseline_variant
        whole = {base: self.loaded.spec.variants[base], **variants}
        loaded = replace(self.loaded, spec=self.loaded.spec.model_copy(update={"variants": whole}))
        models = candidates.deliverable(self._create(loaded), self.target)
        if not first:
            self.pruned = self._infeasible(models, base)
            models = [candidate for candidate in models if candidate.variant not in self.pruned]
        self.parts += 1
        before = len(self.record.rows)
        job_events = self.record.measure(
            self.target, models, self.settings, self.listener, self.stop, self.baseline_events,
            f"-{self.parts}",
        )  # fmt: skip
        if not self.baseline_events:
            names = {candidate.name for candidate in models if candidate.variant == base}
            self.baseline_events = [event for event in job_events if _entry(event) in names]
        added = self.record.rows[before:]
        rows = [row for row in added if row.variant != base or first]
        self.record.rows[before:] = rows
        return rows

    def _infeasible(self, models: Sequence[Candidate], base: str) -> dict[str, Row]:
        about = (self.loaded.spec.name, self.target.device.name, base, models)
        rows: dict[str, Row] = {}
        for row in build_rows(*about, None):
            if row.variant != base and _violated(row, self.search):
                rows.setdefault(row.variant, row)
        return rows

    def _create(self, loaded: Loaded[Pipeline]) -> list[Candidate]:
        target, run = self.target, self.record.initial.run
        inputs, store = inputs_of(loaded), self.workspace.store
        plan = plan_for(loaded, target, self.profiles, inputs)
        with executor_for(
            loaded, target, store, self.workers, run, self.profiles, inputs, self.stop, self.cluster
        ) as executor:
            threads = target.device.threads or self.settings.threads
            check = () if self.force else (require_learned(plan, executor, self.listener),)
            return execute_and_read(
                plan.work,
                executor,
                self.listener,
                lambda errors: candidates.planned(plan, errors, executor, target, threads),
                *check,
            )


def _entry(event: Event) -> str | None:
    return event.entry if isinstance(event, Check | Round | Failed | Answers) else None


def _search(
    bench: _TrialRunner, folder: Path, trials: int, references: list[Trial] | None
) -> SearchResult:
    search, record = bench.search, bench.record
    if references is None:
        references = _references(bench, folder / REFERENCES)
    else:
        bench.rows({})
    rows = [trial.row for trial in references if trial.row is not None]
    directions = []
    for objective in search.objectives:
        direction = direction_of(objective, rows)
        if direction is None:
            metrics = sorted({score.name for row in rows for score in row.metrics})
            raise UsageError(
                f"{bench.loaded.path}: no variant has the objective {objective!r} on "
                f"{bench.target.device.name}; the task's metrics are {', '.join(metrics) or 'none'}"
            )
        directions.append(direction)
    study = Study(folder / STUDY, search, directions)
    runs = bench.workspace.runs
    references = [_with_values(trial, search) for trial in references]

    def alive(run: str) -> bool:
        return run != record.initial.run and open_runs.is_running(runs / run)

    while requests := study.batch(trials, record.initial.run, alive):
        for request, trial in _execute(bench, requests, study.done()):
            study.tell(request, trial, _violation(trial, search))
        front = _result(study, references, directions, bench, trials).front
        names = listed([trial.name for trial in front], 4)
        bench.listener(events.Note(f"{len(study.done())} of {trials} trials; front: {names}"))
    result = _result(study, references, directions, bench, trials)
    _keep(result, folder)
    return result


def _violation(trial: Trial, search: Search) -> float:
    """Amount by which a trial violates constraints; for one that was not measured, those that are
    known without."""
    row = trial.row
    if row is None:
        return 0.0
    limits = search.constraints if trial.values else _applicable(row, search)
    return max((violation(limit, row) for limit in limits), default=0.0)


def _result(
    study: Study,
    references: Sequence[Trial],
    directions: Sequence[Any],
    bench: _TrialRunner,
    trials: int,
) -> SearchResult:
    return SearchResult(
        pipeline=bench.loaded.spec.name,
        device=bench.target.device.name,
        cpu=bench.target.info.cpu or "",
        objectives=bench.search.objectives,
        directions=list(directions),
        constraints=bench.search.constraints,
        trials=[*references, *study.done()],
        n_trials=trials,
    )


def _read_references(path: Path) -> list[Trial] | None:
    """Read the pipeline's own variants as an earlier call measured them. Raises UsageError."""
    if not path.exists():
        return None
    try:
        return [Trial.model_validate(record) for record in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise unusable(path, error) from None


def _references(bench: _TrialRunner, path: Path) -> list[Trial]:
    """Measure the pipeline's own variants, once; every process measures the baseline, since drops
    are paired with its outputs."""
    variants = bench.loaded.spec.variants
    rows = bench.rows(variants, first=True)
    trials = [
        _trial(name, None, {}, variant.model_dump(mode="json", exclude_defaults=True), rows)
        for name, variant in variants.items()
    ]
    replace_json(path, [trial.model_dump(mode="json") for trial in trials])
    return trials


def _execute(
    bench: _TrialRunner, requests: Sequence[TrialRequest], done: Sequence[Trial]
) -> Iterator[tuple[TrialRequest, Trial]]:
    """Create and measure trials together; a repeated variant reuses its earlier result."""
    earlier = {_text(trial.variant): trial for trial in reversed(done) if trial.status != "failed"}
    new: dict[str, Variant] = {}
    names: dict[str, str] = {}
    repeated, invalid = {}, {}
    for request in requests:
        if _text(request.variant) in earlier:
            repeated[request.name] = earlier[_text(request.variant)]
            continue
        # Trials of one batch can have the same variant.
        if names.setdefault(_text(request.variant), request.name) != request.name:
            continue
        try:
            new[request.name] = Variant.model_validate(request.variant)
        except ValueError as error:
            invalid[request.name] = f"invalid variant: {str(error).splitlines()[2].strip()}"
    rows = bench.rows(new) if new else []
    for request in requests:
        about: dict[str, Any] = {
            "name": request.name,
            "number": request.number,
            "chosen": request.chosen,
        }
        if request.name in repeated:
            yield request, repeated[request.name].model_copy(update=about)
        elif (first := names[_text(request.variant)]) in invalid:
            about |= {"variant": request.variant, "reason": invalid[first]}
            yield request, Trial(**about, status="failed")
        else:
            pruned = bench.pruned.get(first)
            if pruned is not None:
                metrics = ", ".join(_violated(pruned, bench.search))
                reason = f"{metrics} beyond the constraint: not measured"
                about |= {"variant": request.variant, "reason": reason, "row": _short(pruned)}
                yield request, Trial(**about, status="infeasible")
                continue
            trial = _trial(first, request.number, request.chosen, request.variant, rows)
            yield request, _with_values(trial, bench.search).model_copy(update=about)


def _trial(
    name: str, number: int | None, chosen: dict[str, Any], variant: Any, rows: Sequence[Row]
) -> Trial:
    """A trial with the row of the runtime on which it is the fastest."""
    rows_of_trial = [row for row in rows if row.variant == name]
    good = [row for row in rows_of_trial if row.status == "ok" and row.latency_ms is not None]
    about = {"name": name, "number": number, "chosen": chosen, "variant": variant}
    if not good:
        reason = next((row.error for row in rows_of_trial if row.error), "was not measured")
        return Trial(**about, status="failed", reason=reason)
    row = min(good, key=lambda r: r.latency_ms.p50 if r.latency_ms else 0.0)
    return Trial(**about, status="ok", row=_short(row))


def _short(row: Row) -> Row:
    """Row without what only the run's results need."""
    return row.model_copy(update={"weights": [], "details": {}})


def _violated(row: Row, search: Search) -> list[str]:
    """Metrics whose constraints a row violates, as far as it has them."""
    return [limit.metric for limit in _applicable(row, search) if violation(limit, row) > 0]


def _applicable(row: Row, search: Search) -> list[Constraint]:
    """Constraints on metrics that a row has."""
    return [limit for limit in search.constraints if metric_of(row, limit.metric) is not None]


def _with_values(trial: Trial, search: Search) -> Trial:
    """Add the objectives' values, and check the constraints."""
    if trial.row is None:
        return trial
    values = [_value(trial.row, objective) for objective in search.objectives]
    missing = [o for o, value in zip(search.objectives, values, strict=True) if value is None]
    if missing:
        return trial.model_copy(
            update={"status": "failed", "reason": f"no {', '.join(missing)} on this device"}
        )
    beyond = [limit.metric for limit in search.constraints if violation(limit, trial.row) > 0]
    update: dict[str, Any] = {"values": values}
    if beyond:
        update |= {"status": "infeasible", "reason": f"{', '.join(beyond)} beyond the constraint"}
    return trial.model_copy(update=update)


def _value(row: Row, objective: str) -> float | None:
    """Value of an objective; instruction counts are rounded to the digits that repeat, since timer
    interrupts, a few in ten thousand, must not decide the next trial."""
    value = metric_of(row, objective)
    if value is not None and row.clock == "instructions" and objective.endswith("_ms"):
        return float(f"{value:.3g}")
    return value


def _keep(result: SearchResult, folder: Path) -> None:
    """Write the front as variants to paste into a pipeline, and the trials as JSON."""
    variants = {trial.name: trial.variant for trial in result.front}
    header = f"# Pareto front of {result.pipeline} on {result.device}: variants for a pipeline.\n"
    replace_text(folder / FRONT, header + yaml.safe_dump({"variants": variants}, sort_keys=False))
    replace_json(folder / RESULT, result.model_dump(mode="json"))


def _text(variant: Any) -> str:
    return json.dumps(variant, sort_keys=True)


def _name(pipeline: Pipeline, device: Device, settings: Benchmark) -> str:
    """Folder name of a search; whatever changes measurements is part of it."""
    shapes_nothing = {"description", "gates", "release", "store", "tracking"}
    about = {
        "pipeline": pipeline.model_dump(mode="json", exclude=shapes_nothing),
        "device": device.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json"),
    }
    digest = hashlib.sha256(_text(about).encode()).hexdigest()[:8]
    return f"{pipeline.name}-{device.name}-{digest}"
