"""The interface of a task: a loss to train with and metrics that evaluate outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgesparse.spec.errors import UsageError

Array = np.ndarray
MetricFunction = Callable[[Array, Array], float]

_NO_OUTPUTS: Array = np.empty(0)


@dataclass(frozen=True)
class Metric:
    """A number that a task gives. `compute` takes outputs [n, ...] and targets [n, ...].

    `unit` is "%" for shares, which are shown as percentages, or empty.
    """

    name: str
    compute: MetricFunction
    direction: Literal["maximize", "minimize"] = "maximize"
    unit: str = ""
    resampler: Callable[[Array, Array], Callable[[Array], float]] | None = None
    """Given outputs and targets, returns a function that computes the metric of some samples, by
    their indices [n], faster than `compute` does of all their outputs; see `of_each`."""

    def drop(self, baseline: float, value: float) -> float:
        """Return the loss against a baseline: positive if worse, in either direction."""
        return baseline - value if self.direction == "maximize" else value - baseline

    def of_samples(self, outputs: Array, targets: Array) -> Callable[[Array], float]:
        """Return a function that computes the metric of the samples with given indices [n]."""
        if self.resampler is not None:
            return self.resampler(outputs, targets)
        return lambda indices: self.compute(outputs[indices], targets[indices])


def of_each(
    name: str,
    each: Callable[[Array, Array], Array],
    value: Callable[[Array], float],
    direction: Literal["maximize", "minimize"] = "maximize",
    unit: str = "",
) -> Metric:
    """Build a metric of one or a few numbers for each sample: their resamples for an
    interval do not evaluate the outputs again.

    Args:
        each: takes outputs and targets, returns [n, ...].
        value: the metric, of such numbers.
    """

    def resampler(outputs: Array, targets: Array) -> Callable[[Array], float]:
        numbers = each(outputs, targets)
        return lambda indices: value(numbers[indices])

    return Metric(
        name,
        lambda outputs, targets: value(each(outputs, targets)),
        direction,
        unit,
        resampler,
    )


def mean(each: Array) -> float:
    """Return the mean of numbers for each sample."""
    return float(each.mean())


@dataclass(frozen=True)
class Task:
    """A task for one output.

    `loss` returns what Keras trains on, by name or object, and `keras_metrics` the metrics that it
    reports while training: functions, since evaluation needs neither, nor TensorFlow.
    `metrics` evaluate outputs; the first is the primary metric unless the pipeline names another.
    `details` returns results that are not a single number, such as a confusion matrix.
    `reduced`: the argmax over an output's last axis is enough, as int16 without that axis, -1 where
    a value is not finite; a device sends no more. `constant` returns, for targets, the outputs of
    the best model that gives every sample the same output: its metric is the chance level.
    """

    name: str
    loss: Callable[[], Any]
    metrics: tuple[Metric, ...]
    keras_metrics: Callable[[], Sequence[Any]] = tuple
    details: Callable[[Array, Array], dict[str, Any]] = field(default=lambda *_: {})
    reduced: bool = False
    constant: Callable[[Array], Array] = field(default=lambda _: _NO_OUTPUTS)

    def chance(self, metric: Metric, targets: Array) -> float | None:
        """Return the metric of a model that has learned nothing; None where it is undefined."""
        if (targets == targets[:1]).all():
            return None  # A constant output is right for all samples: no chance level to compare.
        outputs = self.constant(targets)
        return metric.compute(outputs, targets) if len(outputs) else None

    def metric(self, name: str) -> Metric:
        """Return the metric called `name`. Raises UsageError that lists the metrics."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        names = ", ".join(metric.name for metric in self.metrics)
        raise UsageError(f"task {self.name} has no metric {name!r}; available: {names}")


def finite_samples(outputs: Array) -> Array:
    """Return bool [n]: samples whose outputs are all finite; NaN or inf never counts as correct."""
    finite: Array = np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
    return finite
