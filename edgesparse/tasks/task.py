"""What a task is: what it trains on, and how its answers are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgesparse.spec.errors import UsageError

Array = np.ndarray
Judge = Callable[[Array, Array], float]


NOTHING: Array = np.empty(0)


@dataclass(frozen=True)
class Metric:
    """A number that a task gives. `judge` takes outputs [n, ...] and targets [n, ...].

    `unit` is "%" for shares, which are shown as percentages, or empty.
    """

    name: str
    judge: Judge
    direction: Literal["maximize", "minimize"] = "maximize"
    unit: str = ""

    def drop(self, baseline: float, own: float) -> float:
        """What is lost against a baseline: positive where it is worse, whatever the direction."""
        return baseline - own if self.direction == "maximize" else own - baseline


@dataclass(frozen=True)
class Task:
    """A task for one output.

    `loss` gives what Keras trains on, by name or object, and `watched` the metrics that it reports:
    functions, since judging needs neither.
    `metrics` judge answers, the first of them the one that counts where nobody says. `details`
    gives what is no single number, such as a confusion matrix. `reduced`: of the last axis of an
    output the number of the largest is enough, as int16 without that axis, -1 where not all are
    numbers; a device sends no more. `constant` gives, for targets, the outputs of a model that
    answers every sample alike, as well as that can be done: what a metric is at chance level.
    """

    name: str
    loss: Callable[[], Any]
    metrics: tuple[Metric, ...]
    watched: Callable[[], Sequence[Any]] = tuple
    details: Callable[[Array, Array], dict[str, Any]] = field(default=lambda *_: {})
    reduced: bool = False
    constant: Callable[[Array], Array] = field(default=lambda _: NOTHING)

    def chance(self, metric: Metric, targets: Array) -> float | None:
        """What a metric is for a model that has learned nothing; None where nobody knows."""
        if (targets == targets[:1]).all():
            return None  # Always the same answer is right: that tells nothing.
        outputs = self.constant(targets)
        return metric.judge(outputs, targets) if len(outputs) else None

    def metric(self, name: str) -> Metric:
        """One of its metrics. Raises UsageError with those that there are."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        known = ", ".join(metric.name for metric in self.metrics)
        raise UsageError(f"the task {self.name} has no metric {name!r}; it has {known}")


def finite(outputs: Array) -> Array:
    """Of each sample whether all its outputs are numbers: what is none is never right."""
    found: Array = np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
    return found
