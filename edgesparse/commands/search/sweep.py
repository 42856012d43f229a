"""A sweep: many variants of a pipeline, made here, measured on a device, until a front is found."""

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
from edgesparse.commands.fleet.connect import Target
from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.commands.plan import executor_for, plan_for
from edgesparse.commands.results.record import RunRecord, recorded
from edgesparse.commands.search.study import Asked, Study, check, unusable
from edgesparse.devices.agent.events import Answers, Check, Event, Failed, Round
from edgesparse.graph import events, open_runs
from edgesparse.graph.execution.executor import Cluster
from edgesparse.graph.execution.pool import Workers
from edgesparse.graph.execution.scheduler import execute
from edgesparse.graph.fingerprints import inputs_of
from edgesparse.graph.workspace import Workspace
from edgesparse.measure.job import Candidate, build_rows
from edgesparse.measure.rows import Row, metric_of
from edgesparse.measure.trials import Sweep, Trial, direction_of, violation
from edgesparse.spec.auto_variants import Constraint, Search
from edgesparse.spec.device import Device
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Benchmark, Pipeline, Variant
from edgesparse.spec.reading.load import Loaded, load_pipeline
from edgesparse.spec.safe.files import replace_json, replace_text
from edgesparse.spec.safe.text import listed
from edgesparse.tflite.runtimes.compatibility import Profile

STUDY, REFERENCES, FRONT, FOUND = "study.db", "references.json", "front.yaml", "sweep.json"


def sweep(
    project: Resources,
    pipeline: str | Path | Loaded[Pipeline],
    device: DeviceName = "local",
    *,
    trials: int = 50,
    quick: bool = False,
) -> tuple[Sweep, Path]:
    """Try variants as the pipeline's `search` says, until there are so many; the same call goes on
    where an earlier one was stopped, and several may work on it at once.

    The pipeline's own variants are measured first, and stand beside the trials.

    Args:
        device: name of a file in the project's devices/, a path, or a Device.
        trials: in all, those of earlier calls among them.
        quick: measure briefly.

    Returns:
        What was found, and the folder where it is kept: the study, the front as variants to paste.

    Raises:
        UsageError: there is no search, or a file or name is wrong; nothing was run.
        DeviceError: the device cannot be used.
    """
    loaded = load_pipeline(pipeline)
    search = loaded.spec.search
    if search is None:
        raise UsageError(
            f"{loaded.path}: it has no 'search', which says what to try and what to look for; see "
            "pipelines/README.md"
        )
    found = project.device(device)
    workspace, cluster = project.workspace(loaded.spec.store), project.cluster()
    settings = shortened(loaded.spec.benchmark) if quick else loaded.spec.benchmark
    folder = workspace.folder / "sweeps" / _name(loaded.spec, found, settings)
    command = ["edgesparse", "sweep", str(loaded.path), "--device", found.name]
    check(folder / STUDY)
    references = _kept_references(folder / REFERENCES)
    stop = threading.Event()
    with recorded(
        workspace,
        loaded.spec.name,
        loaded.spec.baseline_variant,
        [found],
        quick=quick,
        command=shlex.join([*command, "--trials", str(trials), *(["--quick"] if quick else [])]),
    ) as record:
        workers = project.workers(workspace.log_path(record.initial.run))
        with project.connect([found], stop) as fleet:
            (target,) = fleet.targets
            record.add_device(target.info, target.notes)
            bench = _Bench(
                loaded, search, target, profiles(target, workspace), workspace, workers,
                record, settings, project.listener, stop, cluster,
            )  # fmt: skip
            return _searched(bench, folder, trials, references), folder


@dataclass
class _Bench:
    """Where variants are made and measured, and what the device has said of the baseline."""

    loaded: Loaded[Pipeline]
    search: Search
    target: Target
    known: Mapping[str, Profile]
    workspace: Workspace
    workers: Workers
    record: RunRecord
    settings: Benchmark
    listener: events.Listener
    stop: threading.Event
    cluster: Cluster | None
    heard: list[Event] = field(default_factory=list)
    parts: int = 0
    pruned: dict[str, Row] = field(default_factory=dict)
    """Variants that were not measured, since they are beyond a limit already by what this machine
    knows: its answers, and the file."""

    def rows(self, variants: Mapping[str, Variant], *, first: bool = False) -> list[Row]:
        """Make and measure variants beside the baseline; the rows of the others, and at `first` of
        the baseline, too."""
        base = self.loaded.spec.baseline_variant
        whole = {base: self.loaded.spec.variants[base], **variants}
        loaded = replace(self.loaded, spec=self.loaded.spec.model_copy(update={"variants": whole}))
        made = self._made(loaded)
        if not first:
            self.pruned = self._beyond(made, base)
            made = [one for one in made if one.variant not in self.pruned]
        self.parts += 1
        before = len(self.record.rows)
        job_events = self.record.measure(
            self.target, made, self.settings, self.listener, self.stop, self.heard,
            f"-{self.parts}",
        )  # fmt: skip
        if not self.heard:
            own = {one.name for one in made if one.variant == base}
            self.heard = [event for event in job_events if _entry(event) in own]
        new = self.record.rows[before:]
        kept = [row for row in new if row.variant != base or first]
        self.record.rows[before:] = kept
        return kept

    def _beyond(self, made: Sequence[Candidate], base: str) -> dict[str, Row]:
        about = (self.loaded.spec.name, self.target.device.name, base, made)
        found: dict[str, Row] = {}
        for row in build_rows(*about, None):
            if row.variant != base and _over(row, self.search):
                found.setdefault(row.variant, row)
        return found

    def _made(self, loaded: Loaded[Pipeline]) -> list[Candidate]:
        target, run = self.target, self.record.initial.run
        inputs, store = inputs_of(loaded), self.workspace.store
        plan = plan_for(loaded, target, self.known, inputs)
        with executor_for(
            loaded, target, store, self.workers, run, self.known, inputs, self.stop, self.cluster
        ) as executor:
            errors = execute(plan.work, executor, self.listener)
            threads = target.device.threads or self.settings.threads
            return candidates.planned(plan, errors, executor, target, threads)


def _entry(event: Event) -> str | None:
    return event.entry if isinstance(event, Check | Round | Failed | Answers) else None


def _searched(bench: _Bench, folder: Path, trials: int, references: list[Trial] | None) -> Sweep:
    search, record = bench.search, bench.record
    if references is None:
        references = _references(bench, folder / REFERENCES)
    else:
        bench.rows({})
    rows = [one.row for one in references if one.row is not None]
    directions = []
    for objective in search.objectives:
        direction = direction_of(objective, rows)
        if direction is None:
            had = sorted({score.name for row in rows for score in row.metrics})
            raise UsageError(
                f"{bench.loaded.path}: no variant has the objective {objective!r} on "
                f"{bench.target.device.name}; the task's metrics are {', '.join(had) or 'none'}"
            )
        directions.append(direction)
    study = Study(folder / STUDY, search, directions)
    runs = bench.workspace.runs
    references = [_valued(one, search) for one in references]

    def alive(run: str) -> bool:
        return run != record.initial.run and open_runs.is_running(runs / run)

    while asked := study.batch(trials, record.initial.run, alive):
        for one, trial in _tried(bench, asked, study.done()):
            study.tell(one, trial, _how_far(trial, search))
        bench.listener(events.Note(_so_far(study, references, directions, bench, trials)))
    found = _sweep(study, references, directions, bench, trials)
    _keep(found, folder)
    return found


def _how_far(trial: Trial, search: Search) -> float:
    """How far a trial is beyond the limits; of one that was not measured, beyond those that it can
    be held against."""
    row = trial.row
    if row is None:
        return 0.0
    limits = search.constraints if trial.values else _known(row, search)
    return max((violation(limit, row) for limit in limits), default=0.0)


def _sweep(
    study: Study, references: Sequence[Trial], directions: Sequence[Any], bench: _Bench, trials: int
) -> Sweep:
    return Sweep(
        pipeline=bench.loaded.spec.name,
        device=bench.target.device.name,
        cpu=bench.target.info.cpu or "",
        objectives=bench.search.objectives,
        directions=list(directions),
        limits=bench.search.constraints,
        trials=[*references, *study.done()],
        n_trials=trials,
    )


def _so_far(
    study: Study, references: Sequence[Trial], directions: Sequence[Any], bench: _Bench, trials: int
) -> str:
    found = _sweep(study, references, directions, bench, trials)
    names = listed([trial.name for trial in found.front], 4)
    tried = len(found.trials) - len(references)
    return f"{tried} of {trials} trials; front: {names}"


def _kept_references(path: Path) -> list[Trial] | None:
    """The pipeline's own variants as an earlier call measured them. Raises UsageError where that is
    damaged."""
    if not path.exists():
        return None
    try:
        return [Trial.model_validate(one) for one in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise unusable(path, error) from None


def _references(bench: _Bench, path: Path) -> list[Trial]:
    """The pipeline's own variants, which are measured once; the baseline in each process, since
    what is lost is told against its answers."""
    variants = bench.loaded.spec.variants
    rows = bench.rows(variants, first=True)
    found = [
        _trial(name, None, {}, variant.model_dump(mode="json", exclude_defaults=True), rows)
        for name, variant in variants.items()
    ]
    replace_json(path, [one.model_dump(mode="json") for one in found])
    return found


def _tried(
    bench: _Bench, asked: Sequence[Asked], done: Sequence[Trial]
) -> Iterator[tuple[Asked, Trial]]:
    """Make and measure trials together; one that was tried before has the figures it had then."""
    earlier = {_text(one.variant): one for one in reversed(done) if one.status != "failed"}
    new: dict[str, Variant] = {}
    names: dict[str, str] = {}
    same, invalid = {}, {}
    for one in asked:
        if _text(one.variant) in earlier:
            same[one.name] = earlier[_text(one.variant)]
            continue
        # Two that were chosen together may be one.
        if names.setdefault(_text(one.variant), one.name) != one.name:
            continue
        try:
            new[one.name] = Variant.model_validate(one.variant)
        except ValueError as error:
            invalid[one.name] = f"no variant: {str(error).splitlines()[2].strip()}"
    rows = bench.rows(new) if new else []
    for one in asked:
        about: dict[str, Any] = {"name": one.name, "number": one.number, "chosen": one.chosen}
        if one.name in same:
            yield one, same[one.name].model_copy(update=about)
        elif (first := names[_text(one.variant)]) in invalid:
            about |= {"variant": one.variant, "reason": invalid[first]}
            yield one, Trial(**about, status="failed")
        else:
            pruned = bench.pruned.get(first)
            if pruned is not None:
                said = f"{', '.join(_over(pruned, bench.search))} beyond the limit: not measured"
                about |= {"variant": one.variant, "reason": said, "row": _short(pruned)}
                yield one, Trial(**about, status="infeasible")
                continue
            trial = _trial(first, one.number, one.chosen, one.variant, rows)
            yield one, _valued(trial, bench.search).model_copy(update=about)


def _trial(
    name: str, number: int | None, chosen: dict[str, Any], variant: Any, rows: Sequence[Row]
) -> Trial:
    """A trial with the row of the runtime on which it is the fastest."""
    own = [row for row in rows if row.variant == name]
    good = [row for row in own if row.status == "ok" and row.latency_ms is not None]
    about = {"name": name, "number": number, "chosen": chosen, "variant": variant}
    if not good:
        reason = next((row.error for row in own if row.error), "was not measured")
        return Trial(**about, status="failed", reason=reason)
    row = min(good, key=lambda one: one.latency_ms.p50 if one.latency_ms else 0.0)
    return Trial(**about, status="ok", row=_short(row))


def _short(row: Row) -> Row:
    """What a table of trials needs; the run's results have it all."""
    return row.model_copy(update={"weights": [], "details": {}})


def _over(row: Row, search: Search) -> list[str]:
    """The metrics whose limits a row does not keep, as far as it has them."""
    return [limit.metric for limit in _known(row, search) if violation(limit, row) > 0]


def _known(row: Row, search: Search) -> list[Constraint]:
    """The limits that a row can be held against."""
    return [limit for limit in search.constraints if metric_of(row, limit.metric) is not None]


def _valued(trial: Trial, search: Search) -> Trial:
    """With its objectives' values, and whether it keeps the limits."""
    if trial.row is None:
        return trial
    values = [_value(trial.row, objective) for objective in search.objectives]
    missing = [o for o, value in zip(search.objectives, values, strict=True) if value is None]
    if missing:
        return trial.model_copy(
            update={"status": "failed", "reason": f"it has no {', '.join(missing)} there"}
        )
    beyond = [limit.metric for limit in search.constraints if violation(limit, trial.row) > 0]
    update: dict[str, Any] = {"values": values}
    if beyond:
        update |= {"status": "infeasible", "reason": f"{', '.join(beyond)} beyond the limit"}
    return trial.model_copy(update=update)


def _value(row: Row, objective: str) -> float | None:
    """Of a clock that counts instructions as many digits as repeat: what its timer interrupts add
    is a few in ten thousand, and must not decide what is tried next."""
    value = metric_of(row, objective)
    if value is not None and row.clock == "instructions" and objective.endswith("_ms"):
        return float(f"{value:.3g}")
    return value


def _keep(found: Sweep, folder: Path) -> None:
    """The front as variants to paste into a pipeline, and everything as JSON."""
    variants = {trial.name: trial.variant for trial in found.front}
    said = (
        f"# The front of {found.pipeline} on {found.device}: variants to paste into a pipeline.\n"
    )
    replace_text(folder / FRONT, said + yaml.safe_dump({"variants": variants}, sort_keys=False))
    replace_json(folder / FOUND, found.model_dump(mode="json"))


def _text(variant: Any) -> str:
    return json.dumps(variant, sort_keys=True)


def _name(pipeline: Pipeline, device: Device, settings: Benchmark) -> str:
    """Whatever would give other figures is another sweep."""
    shapes_nothing = {"description", "gates", "release", "store", "tracking"}
    about = {
        "pipeline": pipeline.model_dump(mode="json", exclude=shapes_nothing),
        "device": device.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json"),
    }
    digest = hashlib.sha256(_text(about).encode()).hexdigest()[:8]
    return f"{pipeline.name}-{device.name}-{digest}"
