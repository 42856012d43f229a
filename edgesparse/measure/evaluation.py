"""Evaluation of outputs by the metrics of their task, wherever a model ran.

Intervals are percentile bootstraps over samples (Efron 1979); drops against a baseline are paired:
both models are resampled with the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesparse.devices.agent.events import Event
from edgesparse.devices.agent.job import Entry
from edgesparse.devices.agent.run_job import collect_outputs
from edgesparse.measure.rows import Interval, Score
from edgesparse.tasks.model_tasks import ModelTasks, from_dict

INCOMPLETE_OUTPUTS = "outputs for the test samples are incomplete"
RESAMPLES = 300
_LARGE = 2_000_000
"""Outputs with more values are resampled a tenth as often where each resample evaluates them."""
_KEPT_BYTES = 50_000_000

Outputs = Mapping[str, NDArray[Any]]
"""By output name, arrays [samples, ...]."""


@dataclass(frozen=True)
class EvaluationResult:
    """Outputs for `samples` test samples, and the value of each metric."""

    outputs: Outputs
    scores: Mapping[str, float]
    samples: int


@dataclass(frozen=True)
class Evaluator:
    """The tasks of a pipeline, and the file with the targets of its test samples."""

    tasks: ModelTasks
    targets_path: Path

    @cached_property
    def targets(self) -> dict[str, NDArray[Any]]:
        """Targets by output name, each [samples, ...]."""
        with np.load(self.targets_path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    @property
    def samples(self) -> int:
        """Number of test samples."""
        return len(next(iter(self.targets.values())))

    def evaluate(self, outputs: Outputs) -> EvaluationResult:
        """Compute every metric of outputs for all test samples."""
        return EvaluationResult(outputs, self.tasks.scores(outputs, self.targets), self.samples)

    def evaluate_entry(self, entry: Entry, events: Iterable[Event]) -> EvaluationResult | None:
        """Evaluate the outputs in a device's events; None where they are missing or incomplete."""
        outputs = collect_outputs(entry, events)
        return None if outputs is None else self.evaluate(outputs)

    def chance_level(self) -> float | None:
        """Primary metric of the best constant output; None where it is undefined."""
        tasks = self.tasks
        task, targets = tasks.tasks[tasks.primary_output], self.targets[tasks.primary_output]
        level = task.chance(tasks.metric, targets)
        return level if level is not None and math.isfinite(level) else None


def read_evaluator(stored: Mapping[str, Any], targets: Path, base: Path) -> Evaluator:
    """Read an evaluator that the samples stage stored; `base` is the folder of the user's code."""
    return Evaluator(from_dict(stored, base), targets)


def save_outputs(result: EvaluationResult, path: Path) -> None:
    """Save outputs, unless they are large."""
    if sum(values.nbytes for values in result.outputs.values()) <= _KEPT_BYTES:
        np.savez(path, **result.outputs)


def read_outputs(path: Path, evaluator: Evaluator) -> EvaluationResult | None:
    """Read and evaluate outputs that `save_outputs` saved; None where it saved none."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        return evaluator.evaluate({name: stored[name] for name in stored.files})


def scores_of(
    evaluator: Evaluator,
    keras: Mapping[str, float],
    host: Mapping[str, float],
    result: EvaluationResult | None,
    baseline: EvaluationResult | None,
    *,
    on_device: bool,
) -> list[Score]:
    """Every metric of a row, the primary one first, with its intervals.

    Args:
        keras: metrics of the Keras model.
        host: metrics of the .tflite file on this machine.
        result: evaluation to show, on the device or on this machine.
        baseline: evaluation of the baseline variant on the same samples.
        on_device: whether `result` is the device's.
    """
    scores: list[Score] = []
    for name, metric in evaluator.tasks.metrics.items():
        value = result.scores.get(name) if result else None
        reference = baseline.scores.get(name) if baseline else None
        drop = None if value is None or reference is None else metric.drop(reference, value)
        ci95, drop_ci95, chance_level = None, None, None
        if not scores and result is not None:
            ci95, drop_ci95 = _intervals(evaluator, result, baseline)
            chance_level = evaluator.chance_level()
        scores.append(
            Score(
                name=name,
                unit=metric.unit,
                direction=metric.direction,
                keras=keras.get(name),
                host=host.get(name),
                device=value if on_device else None,
                drop=drop,
                ci95=ci95,
                drop_ci95=drop_ci95,
                samples=result.samples if result else 0,
                chance_level=chance_level,
            )
        )
    return scores


def _intervals(
    evaluator: Evaluator, result: EvaluationResult, baseline: EvaluationResult | None
) -> tuple[Interval | None, Interval | None]:
    """Intervals of the primary metric and of its drop."""
    output, metric = evaluator.tasks.primary_output, evaluator.tasks.metric
    targets, outputs = evaluator.targets[output], result.outputs[output]
    reference = baseline.outputs[output] if baseline is not None else None
    count = len(targets)
    if count < 2:
        return None, None
    random = np.random.default_rng(0)
    values, drops = [], []
    value_of = metric.of_samples(outputs, targets)
    reference_of = None if reference is None else metric.of_samples(reference, targets)
    few = metric.resampler is None and outputs.size > _LARGE
    for _ in range(RESAMPLES // 10 if few else RESAMPLES):
        drawn = random.integers(count, size=count)
        values.append(value_of(drawn))
        if reference_of is not None:
            drops.append(metric.drop(reference_of(drawn), values[-1]))
    return _interval(values), _interval(drops) if drops else None


def _interval(values: list[float]) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
