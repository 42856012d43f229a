"""Tasks defined by the user: a function that returns a loss and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgesparse.spec.code import references
from edgesparse.spec.errors import UsageError
from edgesparse.tasks.task import Metric, Task

KEYS = {"loss", "metrics", "minimize", "keras_metrics"}


def task(resolved: Mapping[str, Any], base: Path) -> Task:
    """Call the user's function, which returns a Task or a mapping with

    - loss: a Keras loss, by name or object;
    - metrics: name -> function(outputs, targets) -> float, both [n, ...]; the first is primary;
    - minimize (optional): the names of metrics of which lower is better;
    - keras_metrics (optional): metrics that Keras reports while it trains.

    Raises:
        UsageError: it returns something else.
    """
    target = references.find("tasks", None, resolved["ref"], base)
    parts = references.call(target, resolved.get("args", {}), {})
    if isinstance(parts, Task):
        return parts
    if not isinstance(parts, Mapping) or not parts.get("metrics") or "loss" not in parts:
        raise UsageError(
            f"{target.label} must return a mapping with 'loss' and 'metrics': metric names with "
            "functions of outputs and targets"
        )
    if unknown := sorted(set(parts) - KEYS):
        raise UsageError(
            f"{target.label} returned an unknown key {unknown[0]!r}; valid keys: "
            f"{', '.join(sorted(KEYS))}"
        )
    if not isinstance(parts["metrics"], Mapping):
        raise UsageError(
            f"{target.label}: 'metrics' must map names to functions of outputs and targets; "
            "metrics for Keras belong to 'keras_metrics'"
        )
    minimize = parts.get("minimize", ())
    metrics = tuple(
        Metric(name, function, "minimize" if name in minimize else "maximize")
        for name, function in parts["metrics"].items()
    )
    return Task(
        target.label,
        lambda: parts["loss"],
        metrics,
        lambda: tuple(parts.get("keras_metrics", ())),
    )
