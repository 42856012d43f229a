"""The public API: a project whose commands share resources, and each command as a function.

with edgesparse.Project(".", listener=print, jobs=2) as project:
    results = project.deploy("pipelines/digits.yaml", devices=["pi", "coral-usb"], quick=True)
    project.bench("model.tflite", device="pi")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from edgesparse.commands import (
    bench as _bench,
)
from edgesparse.commands import (
    compare as _compare,
)
from edgesparse.commands import (
    deploy as _deploy,
)
from edgesparse.commands import (
    encode as _encode,
)
from edgesparse.commands import (
    export as _export,
)
from edgesparse.commands import (
    inspect as _inspect,
)
from edgesparse.commands import (
    plan as _plan,
)
from edgesparse.commands import (
    sensitivity as _sensitivity,
)
from edgesparse.commands.compression import compress as _compress
from edgesparse.commands.fleet import device_commands
from edgesparse.commands.fleet.resources import Resources
from edgesparse.commands.search import search as _search
from edgesparse.graph import events
from edgesparse.measure.results import Results

Result = TypeVar("Result")


class Project(Resources):
    """A project's folder and its commands.

    Workers, connected devices, store and cluster are kept until the project is closed.

    Example:
        with edgesparse.Project(".", listener=print) as project:
            project.deploy("pipelines/digits.yaml", devices=["pi"])
    """

    deploy = _deploy.deploy
    bench = _bench.bench
    plan = _plan.plan
    search = _search.search
    sensitivity = _sensitivity.sensitivity
    compress = _compress.compress
    inspect = _inspect.inspect
    encode = _encode.encode
    export = _export.export
    compare = _compare.compare
    history = _compare.history
    runs = _compare.runs
    outdated_runs = _compare.outdated_runs
    device_files = device_commands.device_files
    check_device = device_commands.check
    set_up_device = device_commands.set_up
    probe_device = device_commands.probe
    releases = device_commands.releases
    rollback = device_commands.rollback

    def results(self, run: str | None = None) -> Results:
        """Read the results of a run that has ended, by default the last.

        Raises:
            UsageError: the run is unknown, or its file is damaged.
        """
        return self.workspace().results(run)

    def run_ids(self) -> list[str]:
        """List ids of runs with results, oldest first."""
        return self.workspace().run_ids()


def load_results(run: str | None = None, project: str | Path = ".") -> Results:
    """Read the results of a run; see Project.results."""
    return Project(project).results(run)


def list_runs(project: str | Path = ".") -> list[str]:
    """List ids of runs; see Project.run_ids."""
    return Project(project).run_ids()


def _as_function(command: Callable[..., Result]) -> Callable[..., Result]:
    """Wrap a command as a function that opens a project for the call.

    It takes the arguments of the command and those of Project, whose folder is `project`.
    """
    signature = inspect.signature(command)
    opening = inspect.signature(_open).parameters.values()

    @wraps(command)
    def call(*args: Any, **named: Any) -> Result:
        options = {p.name: named.pop(p.name) for p in opening if p.name in named}
        with _open(**options) as project:
            return command(project, *args, **named)

    parameters = [*list(signature.parameters.values())[1:], *opening]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call


def _open(
    *,
    project: str | Path = ".",
    listener: events.Listener | None = None,
    jobs: int | None = None,
    cluster: str | None = None,
) -> Project:
    return Project(project, listener=listener, jobs=jobs, cluster=cluster)


def function(name: str) -> Callable[..., Any]:
    """Return the command of that name as a function, such as `edgesparse.deploy`."""
    return _as_function(getattr(Project, name))
