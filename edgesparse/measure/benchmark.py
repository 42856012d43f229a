"""Measurement of candidates: a job for a device's agent, and rows from its events."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgesparse.delegate.node_summary import summarize
from edgesparse.devices.agent.events import Check, Event, Failed, Round
from edgesparse.devices.agent.job import Entry, Job, Settings
from edgesparse.measure import statistics
from edgesparse.measure.evaluation import INCOMPLETE_OUTPUTS, EvaluationResult, Evaluator, scores_of
from edgesparse.measure.rows import (
    Clock,
    Coverage,
    Cpu,
    EdgeTpuInfo,
    Layer,
    ModelFile,
    Row,
    RuntimeInfo,
    Score,
    Speedup,
    StoredWeight,
    with_report,
)
from edgesparse.spec.pipeline import Benchmark
from edgesparse.tflite.verify import Limits, disagreement

QUICK = {"rounds": 2, "min_seconds": 0.4, "min_runs": 20, "warmup_seconds": 0.05}
"""Benchmark settings of --quick, in place of the pipeline's."""
EXACT = {"rounds": 1, "min_runs": 5, "min_seconds": 0.1, "warmup_runs": 1, "warmup_seconds": 0.0}
"""Benchmark settings for a clock that counts instructions, which does not drift, and for slow
emulation. Many runs of a short inference, since they differ by the timer's interrupts."""
EMULATED_GOLDEN_SAMPLES = 4
"""An emulated board needs minutes for all of them."""
CHIP_DROP = 0.02
"""Accuracy drop of an Edge TPU against the CPU from which on a row has a warning."""
HALF_CONFIRMED = 1.2
"""Smallest speed-up over 32-bit arithmetic that confirms half precision."""
NOT_MEASURED = "was not measured"


@dataclass(frozen=True)
class Candidate:
    """A variant on one runtime and number of threads; without `path` it has failed already."""

    variant: str
    runtime: RuntimeInfo
    delegate: str
    """Name in tables; `external` describes how to load one that is not built in."""
    threads: int
    dense_twin: str | None = None
    """The variant with the same quantization without the last steps: their effect is measured
    against it."""
    path: Path | None = None
    model: ModelFile | None = None
    golden: Path | None = None
    samples: Path | None = None
    limits: Limits | None = None
    evaluator: Evaluator | None = None
    keras_scores: Mapping[str, float] = field(default_factory=dict)
    trained_scores: Mapping[str, float] = field(default_factory=dict)
    host_evaluation: EvaluationResult | None = None
    """Evaluation on this machine; it counts where the device evaluates too few samples."""
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
    """Where half precision was requested: whether a probe has confirmed it on the device."""
    weights: tuple[StoredWeight, ...] = ()
    layers: tuple[Layer, ...] = ()
    shapes: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """Shapes of dynamic inputs, by tensor index."""
    clock: Clock = "wall"
    on_host: bool = False
    """Evaluate on this machine: an emulated device would take an hour."""

    @property
    def entry(self) -> Entry:
        """Entry of the agent's job."""
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
            reduced=self.evaluator.tasks.reduced if self.evaluator else (),
        )

    @property
    def name(self) -> str:
        """Name of the entry, unique on its device."""
        return self.name_of(self.variant)

    def name_of(self, variant: str) -> str:
        """Name of the entry of `variant` on this runtime with as many threads."""
        return f"{variant}@{self.runtime.name}@{self.threads}"


def build_job(run: str, benchmark: Benchmark, candidates: Iterable[Candidate]) -> Job:
    """Build the job that measures every candidate with a model."""
    entries = tuple(c.entry for c in candidates if c.path is not None and c.error is None)
    settings = Settings(
        benchmark.warmup_runs,
        benchmark.warmup_seconds,
        # Settings are totals; each round does its share.
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
    """Build a row per candidate, in order; failures are rows, too.

    Args:
        events: events of the job; None where nothing was measured: rows then have the results of
            verification on this machine.
    """
    measured = None if events is None else _collect(list(events), candidates)
    baseline = _baseline_here(baseline, candidates)
    bases = {c.name: c.host_evaluation for c in candidates if c.variant == baseline}
    return [
        _row(pipeline, device, baseline, c, measured, bases.get(c.name_of(baseline)))
        for c in candidates
    ]


def _baseline_here(baseline: str, candidates: Sequence[Candidate]) -> str:
    """Variant that ratios refer to; on an Edge TPU (full int8 only) the baseline can be missing."""
    if not candidates or any(c.variant == baseline for c in candidates):
        return baseline
    # A dense variant is a fairer reference than another sparse one.
    dense = [c.variant for c in candidates if c.dense_twin is None]
    return dense[0] if dense else candidates[0].variant


@dataclass(frozen=True)
class _Measurements:
    """A job's events by entry."""

    checks: Mapping[str, Check]
    evaluations: Mapping[str, EvaluationResult]
    rounds: Mapping[str, Mapping[int, Round]]
    errors: Mapping[str, str]

    def measured(self, entry: str) -> Mapping[int, Round] | None:
        return None if entry in self.errors else self.rounds.get(entry)


def _collect(events: Sequence[Event], candidates: Iterable[Candidate]) -> _Measurements:
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
    evaluations: dict[str, EvaluationResult] = {}
    for candidate in candidates:
        check = checks.get(candidate.name)
        if check is None or not check.samples:
            continue
        evaluator = candidate.evaluator
        evaluation = evaluator.evaluate_entry(candidate.entry, events) if evaluator else None
        if evaluation is None:
            errors.setdefault(candidate.name, INCOMPLETE_OUTPUTS)
        else:
            evaluations[candidate.name] = evaluation
    return _Measurements(checks, evaluations, rounds, errors)


_FACTS = (
    "runtime", "delegate", "threads", "clock", "variant", "notes", "model", "edgetpu", "coverage",
    "steps", "seed_group", "compute_dtype", "zeros_exploited", "half_precision", "weights",
    "layers",
)  # fmt: skip
"""What a row has of its candidate."""


def _row(
    pipeline: str,
    device: str,
    baseline: str,
    candidate: Candidate,
    measured: _Measurements | None,
    host_base: EvaluationResult | None,
) -> Row:
    error = candidate.error or (_error(candidate, measured) if measured else None)
    facts = {name: getattr(candidate, name) for name in _FACTS}
    status: Literal["failed", "ok"] = "failed" if error else "ok"
    row = Row(pipeline=pipeline, device=device, status=status, error=error, **facts)
    if error:
        return row
    if measured is None:
        scores = _scores(candidate, candidate.host_evaluation, host_base, False)
        return row.model_copy(update={"agreement": candidate.agreement, **scores})
    # Two ratios: against the user's baseline, and against the same quantization without sparsity,
    # which is the effect of the zeros alone.
    name, dense_twin = candidate.name, candidate.dense_twin
    rounds, base = measured.rounds[name], candidate.name_of(baseline)
    speedup = _speedup(measured.measured(base), rounds, baseline)
    vs_dense = None
    if dense_twin is not None:
        vs_dense = _speedup(measured.measured(candidate.name_of(dense_twin)), rounds, dense_twin)
    half = candidate.half_precision
    if half is False and vs_dense is not None:
        half = vs_dense.ci95[0] > HALF_CONFIRMED
    check = measured.checks.get(name)
    answers = _answers(candidate, measured, base, host_base)
    nodes = [summarize(check.nodes)] if check is not None and check.nodes else []
    warnings = [*_chip_warnings(candidate, answers), *_chance_warnings(answers)]
    return row.model_copy(
        update={
            **_measured(rounds, [*row.notes, *nodes, *warnings]),
            **answers,
            "speedup": speedup,
            "speedup_vs_dense": vs_dense,
            "half_precision": half,
            "layers": with_report(row.layers, check.nodes if check is not None else ()),
        }
    )


def _answers(
    candidate: Candidate, measured: _Measurements, base: str, host_base: EvaluationResult | None
) -> dict[str, object]:
    """Return the agreement with the Keras model, and the metrics; empty where nothing ran."""
    check = measured.checks.get(candidate.name)
    if check is None or check.agreement is None:
        return {}
    # An emulated device runs eight samples only: its metrics are those of this machine.
    evaluation = measured.evaluations.get(candidate.name)
    reference = measured.evaluations.get(base)
    use_host = candidate.on_host or evaluation is None
    if use_host:
        evaluation, reference = candidate.host_evaluation, host_base
    scores = _scores(candidate, evaluation, reference, not use_host)
    return {"agreement": check.agreement, **scores}


def _error(candidate: Candidate, measured: _Measurements) -> str | None:
    """Error of a candidate that crashed, was not measured, or has wrong outputs on the device."""
    name = candidate.name
    if name in measured.errors:
        return measured.errors[name]
    if not measured.rounds.get(name):
        return NOT_MEASURED
    check = measured.checks.get(name)
    if check is None or check.agreement is None or candidate.limits is None:
        return None
    return disagreement(check.agreement, candidate.limits)


def _scores(
    candidate: Candidate,
    evaluation: EvaluationResult | None,
    baseline: EvaluationResult | None,
    on_device: bool,
) -> dict[str, object]:
    """Metrics and details of a row, from the evaluation on the device or on this machine."""
    evaluator = candidate.evaluator
    if evaluator is None:
        return {}
    host = candidate.host_evaluation.scores if candidate.host_evaluation else {}
    scores = scores_of(
        evaluator, candidate.keras_scores, host, evaluation, baseline, on_device=on_device
    )
    trained = candidate.trained_scores
    return {
        "metrics": [s.model_copy(update={"keras_train": trained.get(s.name)}) for s in scores],
        "details": evaluator.tasks.details(evaluation.outputs, evaluator.targets)
        if evaluation
        else {},
    }


def _chip_warnings(candidate: Candidate, answers: Mapping[str, Any]) -> list[str]:
    """Warn where an Edge TPU is less accurate than the CPU with the same weights."""
    on_cpu = candidate.edgetpu.cpu_accuracy if candidate.edgetpu else None
    scores = {score.name: score for score in answers.get("metrics", ())}
    on_chip = scores["accuracy"].device if "accuracy" in scores else None
    if on_cpu is None or on_chip is None or on_cpu - on_chip <= CHIP_DROP:
        return []
    return [
        f"accuracy {on_chip:.1%} on the Edge TPU, {on_cpu:.1%} on this device's CPU with the same "
        "weights: do not ship this"
    ]


def _chance_warnings(answers: Mapping[str, object]) -> list[str]:
    """Warn where a model is at chance level."""
    scores = answers.get("metrics")
    score = scores[0] if isinstance(scores, list) and scores else None
    if not isinstance(score, Score) or not score.at_chance or score.chance_level is None:
        return []
    scale, unit = (100, " %") if score.unit == "%" else (1, "")
    level = f"{score.chance_level * scale:.3g}{unit}"
    return [f"at chance level: a constant answer has {score.name} {level}"]


def _milliseconds(rounds: Mapping[int, Round]) -> list[statistics.Samples]:
    return [np.asarray(rounds[i].latency_ns, np.float64) / 1e6 for i in sorted(rounds)]


def _measured(rounds: Mapping[int, Round], notes: list[str]) -> dict[str, object]:
    samples = _milliseconds(rounds)
    ordered = [rounds[i] for i in sorted(rounds)]
    first, last = ordered[0].cpu_before, ordered[-1].cpu_after
    temperatures = [
        t for r in ordered for t in (r.cpu_before.temperature_c, r.cpu_after.temperature_c) if t
    ]
    throttles = [t for r in ordered for t in (r.cpu_before.throttled, r.cpu_after.throttled)]
    states = [t for t in throttles if t is not None]
    return {
        "latency_ms": statistics.summarize(samples),
        "init_ms": float(np.median([r.init_ms for r in ordered])),
        "first_inference_ms": float(np.median([r.first_ms for r in ordered])),
        "peak_rss_bytes": max(r.peak_rss_bytes for r in ordered),
        "cpu": Cpu(
            mhz_before=first.mhz,
            mhz_after=last.mhz,
            temperature_c=max(temperatures, default=None),
            throttled=any(states) if states else None,
        ),
        "notes": [*notes, *_latency_warnings(samples, ordered, any(states))],
    }


def _latency_warnings(
    samples: Sequence[statistics.Samples], rounds: Sequence[Round], throttled: bool
) -> list[str]:
    """Reasons not to trust a latency."""
    warnings = []
    spread = statistics.spread(samples)
    if spread > statistics.UNSTABLE_SPREAD:
        warnings.append(f"unstable: medians of rounds differ by {spread:.0%}")
    # A single unsettled round is bad luck; most of them mean a warm-up that is too short.
    unsettled = sum(not r.stable for r in rounds)
    if unsettled > len(rounds) // 2:
        warnings.append(
            f"unstable: {unsettled} of {len(rounds)} rounds did not settle; "
            "raise benchmark.warmup_seconds"
        )
    if throttled:
        warnings.append("the CPU was throttled; improve cooling or power supply, and measure again")
    clocks = [c for r in rounds for c in (r.cpu_before.mhz, r.cpu_after.mhz) if c]
    if clocks and max(clocks) > min(clocks) * (1 + statistics.CHANGED_CLOCK):
        warnings.append(
            f"the CPU clock varied between {min(clocks):.0f} and {max(clocks):.0f} MHz; "
            "fix the governor"
        )
    return warnings


def _speedup(
    baseline: Mapping[int, Round] | None, rounds: Mapping[int, Round], name: str
) -> Speedup | None:
    if not baseline:
        return None
    if baseline is rounds:
        return Speedup(ratio=1.0, ci95=(1.0, 1.0), baseline=name)
    # Only common rounds: pairing them cancels drift.
    common = sorted(set(baseline) & set(rounds))
    if not common:
        return None
    ratio = statistics.compare(
        _milliseconds({i: baseline[i] for i in common}),
        _milliseconds({i: rounds[i] for i in common}),
    )
    return Speedup(ratio=ratio.ratio, ci95=ratio.ci95, baseline=name)
