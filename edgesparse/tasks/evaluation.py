"""How a model's answers are judged: the tasks of its outputs and the metric that counts. Without
TensorFlow: whoever talks to devices judges what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesparse import tasks
from edgesparse.tasks.task import Array, Metric, Task

Answers = Mapping[str, Array]


@dataclass(frozen=True)
class Judging:
    """`tasks` by the names of the model's outputs, in their order. `metric` is the one that counts,
    of the output `judged`. `resolved` is the tasks as plain data."""

    tasks: Mapping[str, Task]
    resolved: Mapping[str, Any]
    judged: str
    metric: Metric

    @property
    def several(self) -> bool:
        return len(self.tasks) > 1

    @property
    def name(self) -> str:
        """Of the metric that counts, as results call it."""
        return self.named(self.judged, self.metric)

    @property
    def metrics(self) -> dict[str, Metric]:
        """Every metric, as results call it; the one that counts first."""
        found = {self.name: self.metric}
        for output, task in self.tasks.items():
            for metric in task.metrics:
                found.setdefault(self.named(output, metric), metric)
        return found

    @property
    def reduced(self) -> tuple[bool, ...]:
        """Of each output, whether devices send the number of the largest only."""
        return tuple(task.reduced for task in self.tasks.values())

    def named(self, output: str, metric: Metric) -> str:
        """What a metric is called in results: with its output, where there are several."""
        return f"{output} {metric.name}" if self.several else metric.name

    def scores(
        self, outputs: Mapping[str, Array], targets: Mapping[str, Array]
    ) -> dict[str, float]:
        """Every metric of answers [n, ...] by output; targets by output, too."""
        return {
            self.named(output, metric): metric.judge(outputs[output], targets[output])
            for output, task in self.tasks.items()
            for metric in task.metrics
        }

    def details(self, outputs: Mapping[str, Array], targets: Mapping[str, Array]) -> dict[str, Any]:
        """What is no single number, by output where there are several."""
        each = {
            output: task.details(outputs[output], targets[output])
            for output, task in self.tasks.items()
        }
        return each if self.several else next(iter(each.values()))


def plain(judging: Judging) -> dict[str, Any]:
    """As data that can be stored."""
    return {
        "resolved": judging.resolved,
        "judged": judging.judged,
        "metric": judging.metric.name,
    }


def rebuilt(kept: Mapping[str, Any], base: Path) -> Judging:
    """From what `plain` gave; `base` is the folder of the pipeline's file."""
    resolved = kept["resolved"]
    each = resolved["outputs"] if "outputs" in resolved else {kept["judged"]: resolved}
    built = {name: tasks.build(one, base) for name, one in each.items()}
    return Judging(built, resolved, kept["judged"], built[kept["judged"]].metric(kept["metric"]))
