"""What to measure: candidates on a device become a job for its agent, and its events rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.delegate.report import summarize
from edgesparse.devices.agent.events import Check, Event, Failed, Round
from edgesparse.devices.agent.job import Entry, Job, Settings
from edgesparse.measure import statistics
from edgesparse.measure.evaluation import LOST, Judge, Judgement, judged, scores_of
from edgesparse.measure.rows import (
    Clock,
    Coverage,
    Cpu,
    EdgeTpuInfo,
    ModelFile,
    Row,
    RuntimeInfo,
    Score,
    Speedup,
    StoredWeight,
)
from edgesparse.spec.pipeline import Benchmark
from edgesparse.tflite.verify import Limits, disagreement

QUICK = {"rounds": 2, "min_seconds": 1.0, "min_runs": 20, "warmup_seconds": 0.1}
"""What --quick puts in place of the pipeline's own benchmark settings."""
EXACT = {"rounds": 1, "min_runs": 12, "min_seconds": 0.5, "warmup_runs": 2, "warmup_seconds": 0.0}
"""The same for a clock that counts instructions: nothing drifts there, and emulation is slow. Half
a second, since what differs between runs is how many timer interrupts a short inference sees."""
EMULATED_GOLDEN_SAMPLES = 8


CHIP_DROP = 0.02
"""Accuracy that an Edge TPU may lose against the CPU without a warning."""
HALF_SEEN = 1.2
"""From this gain against the same numbers in 32-bit arithmetic on, half precision was seen."""
NOT_MEASURED = "was not measured"


@dataclass(frozen=True)
class Candidate:
    """A variant on one runtime with one number of threads; without `path` it already failed."""

    variant: str
    runtime: RuntimeInfo
    delegate: str
    """As it is named in tables; `external` is how it is loaded when it is no built-in one."""
    threads: int
    dense_twin: str | None = None
    """The variant with the same quantization and the fewest steps less: what its last steps do is
    told against it."""
    path: Path | None = None
    model: ModelFile | None = None
    golden: Path | None = None
    samples: Path | None = None
    limits: Limits | None = None
    judge: Judge | None = None
    keras_scores: Mapping[str, float] = field(default_factory=dict)
    trained_scores: Mapping[str, float] = field(default_factory=dict)
    host_answers: Judgement | None = None
    """What this machine's runtimes answer; what counts where the device answers too few."""
    agreement: float | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()
    external: Mapping[str, Any] | None = None
    edgetpu: EdgeTpuInfo | None = None
    coverage: Coverage | None = None
    steps: tuple[str, ...] = ()
    seed_group: str | None = None
    compute_dtype: str | None = None
    zeros_exploited: bool | None = None
    half_precision: bool | None = None
    """Where that is asked for: whether a probe has seen it there."""
    weights: tuple[StoredWeight, ...] = ()
    shapes: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """Of inputs that the file leaves open, by tensor."""
    clock: Clock = "wall"
    on_host: bool = False
    """Accuracy is the host's: on an emulated device it would take an hour."""

    @property
    def entry(self) -> Entry:
        """What the device's agent is asked to run."""
        assert self.path is not None
        return Entry(
            self.name,
            self.path,
            self.runtime.name,
            self.external or self.delegate,
            self.threads,
            self.golden,
            None if self.on_host else self.samples,
            self.limits.tolerance if self.limits else 0.0,
            EMULATED_GOLDEN_SAMPLES if self.on_host else None,
            shapes=self.shapes,
            reduced=self.judge.judging.reduced if self.judge else (),
        )

    @property
    def name(self) -> str:
        return self.name_of(self.variant)

    def name_of(self, variant: str) -> str:
        """The name of `variant` on this runtime with as many threads."""
        return f"{variant}@{self.runtime.name}@{self.threads}"


def build_job(run: str, benchmark: Benchmark, candidates: Iterable[Candidate]) -> Job:
    """The job that measures every candidate that has a model."""
    entries = tuple(c.entry for c in candidates if c.path is not None and c.error is None)
    settings = Settings(
        benchmark.warmup_runs,
        benchmark.warmup_seconds,
        # Totals are what a user asks for; each round does its share.
        math.ceil(benchmark.min_runs / benchmark.rounds),
        benchmark.min_seconds / benchmark.rounds,
        benchmark.timeout_seconds,
    )
    return Job(run, benchmark.rounds, settings, entries)


def build_rows(
    pipeline: str,
    device: str,
    baseline: str,
    candidates: Sequence[Candidate],
    events: Iterable[Event] | None,
) -> list[Row]:
    """A row per candidate, in order; failures are rows too.

    Without events nothing was to be measured: rows say what verification on the host found.
    """
    seen = None if events is None else _collect(list(events), candidates)
    baseline = _baseline_here(baseline, candidates)
    bases = {c.name: c.host_answers for c in candidates if c.variant == baseline}
    return [
        _row(pipeline, device, baseline, c, seen, bases.get(c.name_of(baseline)))
        for c in candidates
    ]


def _baseline_here(baseline: str, candidates: Sequence[Candidate]) -> str:
    """What ratios refer to: an Edge TPU runs full int8 only, so the baseline may be missing."""
    if not candidates or any(c.variant == baseline for c in candidates):
        return baseline
    # Any dense one is a fairer reference than another sparse one.
    dense = [c.variant for c in candidates if c.dense_twin is None]
    return dense[0] if dense else candidates[0].variant


@dataclass(frozen=True)
class _Seen:
    """A job's events by entry."""

    checks: Mapping[str, Check]
    judgements: Mapping[str, Judgement]
    rounds: Mapping[str, Mapping[int, Round]]
    errors: Mapping[str, str]

    def measured(self, entry: str) -> Mapping[int, Round] | None:
        return None if entry in self.errors else self.rounds.get(entry)


def _collect(events: Sequence[Event], candidates: Iterable[Candidate]) -> _Seen:
    checks: dict[str, Check] = {}
    rounds: dict[str, dict[int, Round]] = {}
    errors: dict[str, str] = {}
    for event in events:
        if isinstance(event, Check):
            checks[event.entry] = event
        elif isinstance(event, Round):
            rounds.setdefault(event.entry, {})[event.round] = event
        elif isinstance(event, Failed):
            errors[event.entry] = event.error
    judgements: dict[str, Judgement] = {}
    for candidate in candidates:
        check = checks.get(candidate.name)
        if check is None or not check.samples:
            continue
        judgement = judged(candidate.entry, events, candidate.judge)
        if judgement is None:
            errors.setdefault(candidate.name, LOST)
        else:
            judgements[candidate.name] = judgement
    return _Seen(checks, judgements, rounds, errors)


def _row(
    pipeline: str,
    device: str,
    baseline: str,
    candidate: Candidate,
    seen: _Seen | None,
    host_base: Judgement | None,
) -> Row:
    error = candidate.error or (_error(candidate, seen) if seen else None)
    row = Row(
        pipeline=pipeline,
        device=device,
        runtime=candidate.runtime,
        delegate=candidate.delegate,
        threads=candidate.threads,
        clock=candidate.clock,
        variant=candidate.variant,
        status="failed" if error else "ok",
        error=error,
        notes=list(candidate.notes),
        model=candidate.model,
        edgetpu=candidate.edgetpu,
        coverage=candidate.coverage,
        steps=list(candidate.steps),
        seed_group=candidate.seed_group,
        compute_dtype=candidate.compute_dtype,
        zeros_exploited=candidate.zeros_exploited,
        half_precision=candidate.half_precision,
        weights=list(candidate.weights),
    )
    if error:
        return row
    if seen is None:
        known = _scores(candidate, candidate.host_answers, host_base, False)
        return row.model_copy(update={"agreement": candidate.agreement, **known})
    # Two ratios: against what the user compares with, and against the same numbers without
    # sparsity, which tells what the zeros alone do.
    name, twin = candidate.name, candidate.dense_twin
    rounds = seen.rounds[name]
    base = candidate.name_of(baseline)
    speedup = _speedup(seen.measured(base), rounds, baseline)
    zeros = _speedup(seen.measured(candidate.name_of(twin)), rounds, twin) if twin else None
    half = candidate.half_precision
    if half is False and zeros is not None:
        half = zeros.ci95[0] > HALF_SEEN
    check = seen.checks.get(name)
    answers: dict[str, object] = {}
    if check is not None and check.agreement is not None:
        # An emulated device answers eight samples only: its metrics are this machine's.
        own, before = seen.judgements.get(name), seen.judgements.get(base)
        here = candidate.on_host or own is None
        if here:
            own, before = candidate.host_answers, host_base
        answers = {
            "agreement": check.agreement,
            **_scores(candidate, own, before, not here),
        }
    nodes = [summarize(check.nodes)] if check is not None and check.nodes else []
    doubts = [*_chip_doubts(candidate, answers), *_at_chance(answers)]
    return row.model_copy(
        update={
            **_measured(rounds, [*row.notes, *nodes, *doubts]),
            **answers,
            "speedup": speedup,
            "speedup_vs_dense": zeros,
            "half_precision": half,
        }
    )


def _error(candidate: Candidate, seen: _Seen) -> str | None:
    """Why a candidate has no figures: it crashed, was not reached, or answers wrong there."""
    name = candidate.name
    if name in seen.errors:
        return seen.errors[name]
    if not seen.rounds.get(name):
        return NOT_MEASURED
    check = seen.checks.get(name)
    if check is None or check.agreement is None or candidate.limits is None:
        return None
    return disagreement(check.agreement, candidate.limits)


def _scores(
    candidate: Candidate, own: Judgement | None, baseline: Judgement | None, on_device: bool
) -> dict[str, object]:
    """A row's metrics, by what the device or this machine has answered."""
    judge = candidate.judge
    if judge is None:
        return {}
    host = candidate.host_answers.scores if candidate.host_answers else {}
    scores = scores_of(judge, candidate.keras_scores, host, own, baseline, on_device=on_device)
    trained = candidate.trained_scores
    return {
        "metrics": [s.model_copy(update={"keras_train": trained.get(s.name)}) for s in scores],
        "details": judge.judging.details(own.answers, judge.wanted) if own else {},
    }


def _chip_doubts(candidate: Candidate, answers: Mapping[str, Any]) -> list[str]:
    """Warn where an Edge TPU is less accurate than the CPU with the same weights."""
    on_cpu = candidate.edgetpu.cpu_accuracy if candidate.edgetpu else None
    scores = {score.name: score for score in answers.get("metrics", ())}
    on_chip = scores["accuracy"].device if "accuracy" in scores else None
    if on_cpu is None or on_chip is None or on_cpu - on_chip <= CHIP_DROP:
        return []
    return [
        f"the Edge TPU answers {on_chip:.1%} right, this device's CPU {on_cpu:.1%} with the same "
        "weights: do not ship this"
    ]


def _at_chance(answers: Mapping[str, object]) -> list[str]:
    """Whether a model has learned nothing."""
    scores = answers.get("metrics")
    score = scores[0] if isinstance(scores, list) and scores else None
    if not isinstance(score, Score) or not score.at_chance or score.chance_level is None:
        return []
    scale, unit = (100, " %") if score.unit == "%" else (1, "")
    level = f"{score.chance_level * scale:.3g}{unit}"
    return [f"at chance level: always the same answer has {score.name} {level}"]


def _milliseconds(rounds: Mapping[int, Round]) -> list[statistics.Samples]:
    return [np.asarray(rounds[i].latency_ns, np.float64) / 1e6 for i in sorted(rounds)]


def _measured(rounds: Mapping[int, Round], notes: list[str]) -> dict[str, object]:
    samples = _milliseconds(rounds)
    ordered = [rounds[i] for i in sorted(rounds)]
    first, last = ordered[0].cpu_before, ordered[-1].cpu_after
    # The hottest moment counts: throttling begins there.
    temperatures = [
        t for r in ordered for t in (r.cpu_before.temperature_c, r.cpu_after.temperature_c) if t
    ]
    throttles = [t for r in ordered for t in (r.cpu_before.throttled, r.cpu_after.throttled)]
    known = [t for t in throttles if t is not None]
    return {
        "latency_ms": statistics.summarize(samples),
        "init_ms": float(np.median([r.init_ms for r in ordered])),
        "first_inference_ms": float(np.median([r.first_ms for r in ordered])),
        "peak_rss_bytes": max(r.peak_rss_bytes for r in ordered),
        "cpu": Cpu(
            mhz_before=first.mhz,
            mhz_after=last.mhz,
            temperature_c=max(temperatures, default=None),
            throttled=any(known) if known else None,
        ),
        "notes": [*notes, *_doubts(samples, ordered, any(known))],
    }


def _doubts(
    samples: Sequence[statistics.Samples], rounds: Sequence[Round], throttled: bool
) -> list[str]:
    """Why a latency should not be trusted."""
    doubts = []
    apart = statistics.spread(samples)
    if apart > statistics.UNSTABLE_SPREAD:
        doubts.append(f"unstable: the rounds' medians are {apart:.0%} apart")
    # One round that never settled is bad luck; most of them, a warm-up that is too short.
    unsettled = sum(not r.stable for r in rounds)
    if unsettled > len(rounds) // 2:
        doubts.append(
            f"unstable: {unsettled} of {len(rounds)} rounds never settled; "
            "raise benchmark.warmup_seconds"
        )
    if throttled:
        doubts.append("the CPU was throttled: improve cooling or power supply, then measure again")
    clocks = [c for r in rounds for c in (r.cpu_before.mhz, r.cpu_after.mhz) if c]
    if clocks and max(clocks) > min(clocks) * (1 + statistics.CHANGED_CLOCK):
        doubts.append(
            f"the CPU clock moved between {min(clocks):.0f} and {max(clocks):.0f} MHz; "
            "fix the governor"
        )
    return doubts


def _speedup(
    baseline: Mapping[int, Round] | None, own: Mapping[int, Round], name: str
) -> Speedup | None:
    if not baseline:
        return None
    if baseline is own:
        return Speedup(ratio=1.0, ci95=(1.0, 1.0), baseline=name)
    # Only rounds that both have: pairing is what cancels drift.
    common = sorted(set(baseline) & set(own))
    if not common:
        return None
    ratio = statistics.compare(
        _milliseconds({i: baseline[i] for i in common}), _milliseconds({i: own[i] for i in common})
    )
    return Speedup(ratio=ratio.ratio, ci95=ratio.ci95, baseline=name)
