"""What models are for. One file per task: its loss, its metrics, and what it takes.

A metric judges outputs wherever they come from, the Keras model, this machine's runtimes or a
device: it exists once. A task is resolved from what a pipeline says, the model and the data, and
kept as plain data, from which `build` makes it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgesparse.spec.errors import UsageError

Array = np.ndarray
Judge = Callable[[Array, Array], float]
NAMES = ("classification", "multi-label", "regression", "segmentation", "reconstruction")


@dataclass(frozen=True)
class Metric:
    """A number that a task gives. `judge` takes outputs [n, ...] and targets [n, ...].

    `unit` is "%" for shares, which are shown as percentages, or empty.
    """

    name: str
    judge: Judge
    best: Literal["highest", "lowest"] = "highest"
    unit: str = ""

    def drop(self, baseline: float, own: float) -> float:
        """What is lost against a baseline: positive where it is worse, whatever the direction."""
        return baseline - own if self.best == "highest" else own - baseline


@dataclass(frozen=True)
class Task:
    """A task for one output.

    `loss` gives what Keras trains on, by name or object, and `watched` the metrics that it reports:
    functions, since judging needs neither.
    `metrics` judge answers, the first of them the one that counts where nobody says. `details`
    gives what is no single number, such as a confusion matrix.
    """

    name: str
    loss: Callable[[], Any]
    metrics: tuple[Metric, ...]
    watched: Callable[[], Sequence[Any]] = tuple
    details: Callable[[Array, Array], dict[str, Any]] = field(default=lambda *_: {})

    def metric(self, name: str) -> Metric:
        """One of its metrics. Raises UsageError with those that there are."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        known = ", ".join(metric.name for metric in self.metrics)
        raise UsageError(f"the task {self.name} has no metric {name!r}; it has {known}")


def build(resolved: Mapping[str, Any], base: Path) -> Task:
    """The task of one output, from what `resolve.resolve` found."""
    if resolved["name"] == "ref":
        from edgesparse.tasks import own

        return own.task(resolved, base)
    module = import_module(f"edgesparse.tasks.{resolved['name'].replace('-', '_')}")
    task: Task = module.task(resolved)
    return task


def finite(outputs: Array) -> Array:
    """Of each sample whether all its outputs are numbers: what is none is never right."""
    found: Array = np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
    return found
