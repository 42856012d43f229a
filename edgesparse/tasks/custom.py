"""A user's own task: a function that gives its loss, its metrics and how answers are judged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgesparse.spec.code import references
from edgesparse.spec.errors import UsageError
from edgesparse.tasks.task import Metric, Task


def task(resolved: Mapping[str, Any], base: Path) -> Task:
    """What the user's function returns: a Task, or a mapping with

    loss: of Keras, by name or object; judge: name -> function(outputs, targets) -> float, both
    [n, ...], the first the one that counts; and, if wanted, lowest: the names of metrics of which
    less is better; metrics: what Keras reports while it trains.

    Raises:
        UsageError: it returns something else.
    """
    target = references.find("tasks", None, resolved["ref"], base)
    found = references.call(target, resolved.get("args", {}), {})
    if isinstance(found, Task):
        return found
    if not isinstance(found, Mapping) or not found.get("judge") or "loss" not in found:
        raise UsageError(
            f"{target.label} must return a mapping with 'loss' and 'judge': the names of metrics "
            "with functions of outputs and targets"
        )
    lowest = found.get("lowest", ())
    metrics = tuple(
        Metric(name, judge, "minimize" if name in lowest else "maximize")
        for name, judge in found["judge"].items()
    )
    return Task(
        target.label, lambda: found["loss"], metrics, lambda: tuple(found.get("metrics", ()))
    )
