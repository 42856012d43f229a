"""What models are for. One file per task: its loss, its metrics, and what it takes.

A metric judges outputs wherever they come from, the Keras model, this machine's runtimes or a
device: it exists once. A task is resolved from what a pipeline says, the model and the data, and
kept as plain data, from which `build` makes it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from edgesparse.tasks.task import Metric, Task

__all__ = ["Metric", "Task", "build"]


def build(resolved: Mapping[str, Any], base: Path) -> Task:
    """The task of one output, from what `resolve.resolve` found."""
    if resolved["name"] == "ref":
        from edgesparse.tasks import custom

        return custom.task(resolved, base)
    module = import_module(f"edgesparse.tasks.{resolved['name'].replace('-', '_')}")
    task: Task = module.task(resolved)
    return task
