"""The tasks of a model's outputs and its primary metric.

Imports no TensorFlow: the process that talks to devices evaluates their outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesparse import tasks
from edgesparse.tasks.task import Array, Metric, Task


@dataclass(frozen=True)
class ModelTasks:
    """`tasks` by the names of the model's outputs, in their order. `metric` is the primary metric,
    of the output `primary_output`. `resolved` is the tasks as plain data."""

    tasks: Mapping[str, Task]
    resolved: Mapping[str, Any]
    primary_output: str
    metric: Metric

    @property
    def is_multi_output(self) -> bool:
        return len(self.tasks) > 1

    @property
    def metric_name(self) -> str:
        """The name of the primary metric in results."""
        return self.metric_label(self.primary_output, self.metric)

    @property
    def metrics(self) -> dict[str, Metric]:
        """Every metric by its name in results; the primary metric first."""
        metrics = {self.metric_name: self.metric}
        for output, task in self.tasks.items():
            for metric in task.metrics:
                metrics.setdefault(self.metric_label(output, metric), metric)
        return metrics

    @property
    def reduced(self) -> tuple[bool, ...]:
        """`Task.reduced` of each output: devices send its argmax only."""
        return tuple(task.reduced for task in self.tasks.values())

    def metric_label(self, output: str, metric: Metric) -> str:
        """Return a metric's name in results: with its output if the model has several."""
        return f"{output} {metric.name}" if self.is_multi_output else metric.name

    def scores(
        self, outputs: Mapping[str, Array], targets: Mapping[str, Array]
    ) -> dict[str, float]:
        """Compute every metric of outputs [n, ...] against targets [n, ...], both by output."""
        return {
            self.metric_label(output, metric): metric.compute(outputs[output], targets[output])
            for output, task in self.tasks.items()
            for metric in task.metrics
        }

    def details(self, outputs: Mapping[str, Array], targets: Mapping[str, Array]) -> dict[str, Any]:
        """Compute results that are not a single number; by output if the model has several."""
        by_output = {
            output: task.details(outputs[output], targets[output])
            for output, task in self.tasks.items()
        }
        return by_output if self.is_multi_output else next(iter(by_output.values()))


def to_dict(model_tasks: ModelTasks) -> dict[str, Any]:
    """Return the tasks as plain data to be stored; see `from_dict`."""
    return {
        "resolved": model_tasks.resolved,
        "output": model_tasks.primary_output,
        "metric": model_tasks.metric.name,
    }


def from_dict(stored: Mapping[str, Any], base: Path) -> ModelTasks:
    """Rebuild tasks from the result of `to_dict`; `base` is the folder of the pipeline's file."""
    resolved, output = stored["resolved"], stored["output"]
    by_output = resolved.get("outputs", {output: resolved})
    built = {name: tasks.build(task, base) for name, task in by_output.items()}
    return ModelTasks(built, resolved, output, built[output].metric(stored["metric"]))
