"""Tasks that models are trained for. One file per task: its loss, its metrics, its checks.

A metric evaluates outputs wherever they come from, the Keras model, this machine's runtimes or a
device: it exists once. A task is resolved from the pipeline, the model and the data, and stored as
plain data, from which `build` creates it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from edgesparse.tasks.task import Metric, Task

__all__ = ["Metric", "Task", "build"]


def build(resolved: Mapping[str, Any], base: Path) -> Task:
    """Build the task of one output from the result of `resolve.resolve`.

    Args:
        base: the folder that a reference to the user's own task is relative to.

    Raises:
        UsageError: the user's function fails or returns something else than a task.
    """
    if resolved["name"] == "ref":
        from edgesparse.tasks import custom

        return custom.task(resolved, base)
    module = import_module(f"edgesparse.tasks.{resolved['name'].replace('-', '_')}")
    task: Task = module.task(resolved)
    return task
