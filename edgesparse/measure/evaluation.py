"""What answers are worth: the task judges them here, wherever they were given.

Intervals are percentile bootstraps over samples (Efron 1979); what is lost against a baseline is
judged on the same samples, drawn for both alike.
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
from edgesparse.tasks.evaluation import ModelTasks, from_dict

LOST = "its answers to the samples did not arrive whole"
RESAMPLES = 300
_LARGE = 2_000_000
"""Answers of so many numbers are drawn less often: each draw judges them all."""
_KEPT_BYTES = 50_000_000

Answers = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Judge:
    """How answers to a pipeline's samples are judged; `targets` by output, each [n, ...]."""

    judging: ModelTasks
    targets: Path

    @cached_property
    def wanted(self) -> dict[str, NDArray[Any]]:
        with np.load(self.targets, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}


def read_judge(kept: Mapping[str, Any], targets: Path, base: Path) -> Judge:
    """From what the samples stage left."""
    return Judge(from_dict(kept, base), targets)


@dataclass(frozen=True)
class Judgement:
    """Answers to `samples` samples, and each metric of them."""

    answers: Answers
    scores: Mapping[str, float]
    samples: int


def judged(entry: Entry, events: Iterable[Event], judge: Judge | None) -> Judgement | None:
    """What an entry's answers to its samples are worth; None where it gave none, or not all."""
    answers = collect_outputs(entry, events)
    return None if answers is None or judge is None else judgement_of(answers, judge)


def judgement_of(answers: Answers, judge: Judge) -> Judgement:
    """What answers are worth."""
    samples = len(next(iter(judge.wanted.values())))
    return Judgement(answers, judge.judging.scores(answers, judge.wanted), samples)


def save_answers(judgement: Judgement, path: Path) -> None:
    """Keep answers, as long as they are not many."""
    if sum(values.nbytes for values in judgement.answers.values()) <= _KEPT_BYTES:
        np.savez(path, **judgement.answers)


def read_answers(path: Path, judge: Judge) -> Judgement | None:
    """What `save_answers` kept, judged again."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        return judgement_of({name: stored[name] for name in stored.files}, judge)


def scores_of(
    judge: Judge,
    keras: Mapping[str, float],
    host: Mapping[str, float],
    own: Judgement | None,
    baseline: Judgement | None,
    *,
    on_device: bool,
) -> list[Score]:
    """Every metric of a row, the one that counts first, with its interval.

    Args:
        own: the answers that are shown, given on the device or on this machine.
        baseline: those of the variant that drops refer to, to the same samples.
    """
    found: list[Score] = []
    for name, metric in judge.judging.metrics.items():
        value = own.scores.get(name) if own else None
        before = baseline.scores.get(name) if baseline else None
        drop = None if value is None or before is None else metric.drop(before, value)
        ci95, drop_ci95, chance = None, None, None
        if not found and own is not None:
            ci95, drop_ci95 = _intervals(judge, own, baseline)
            chance = chance_of(judge)
        found.append(
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
                samples=own.samples if own else 0,
                chance_level=chance,
            )
        )
    return found


def chance_of(judge: Judge) -> float | None:
    """The metric that counts where every sample gets the same answer, as good as that can be."""
    judging = judge.judging
    task, targets = judging.tasks[judging.primary_output], judge.wanted[judging.primary_output]
    found = task.chance(judging.metric, targets)
    return found if found is not None and math.isfinite(found) else None


def _intervals(
    judge: Judge, own: Judgement, baseline: Judgement | None
) -> tuple[Interval | None, Interval | None]:
    """Of the metric that counts, and of what is lost of it."""
    output, metric = judge.judging.primary_output, judge.judging.metric
    targets, mine = judge.wanted[output], own.answers[output]
    theirs = baseline.answers[output] if baseline is not None else None
    count = len(targets)
    if count < 2:
        return None, None
    random = np.random.default_rng(0)
    values, drops = [], []
    for _ in range(RESAMPLES if mine.size <= _LARGE else RESAMPLES // 10):
        drawn = random.integers(count, size=count)
        value = metric.compute(mine[drawn], targets[drawn])
        values.append(value)
        if theirs is not None:
            drops.append(metric.drop(metric.compute(theirs[drawn], targets[drawn]), value))
    return _interval(values), _interval(drops) if drops else None


def _interval(values: list[float]) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
