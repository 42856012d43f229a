"""The public API: a project whose commands share what they open, and each command by itself.

with edgesparse.Project(".", listener=print, jobs=2) as project:
    results = project.deploy("pipelines/digits.yaml", devices=["pi", "coral-usb"], quick=True)
    project.bench("model.tflite", device="pi")
"""

from __future__ import annotations

import inspect as introspection
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from edgesparse.measure.results import Results
from edgesparse.graph import progress as events
from edgesparse.commands import (
    bench,
    comparing,
    compressing,
    deploy,
    encoding,
    exporting,
    inspection,
    planning,
    sensitivity,
)
from edgesparse.commands.fleet import upkeep
from edgesparse.commands.fleet.resources import Resources
from edgesparse.commands.search import sweep

Result = TypeVar("Result")


class Project(Resources):
    """A project's folder and its commands. Workers, connected devices, store and cluster live as
    long as it does; closing it, or leaving its block, ends them."""

    deploy = deploy.deploy
    bench = bench.bench
    plan = planning.plan
    sweep = sweep.sweep
    sensitivity = sensitivity.sensitivity
    compress = compressing.compress
    inspect = inspection.inspect
    encode = encoding.encode
    export = exporting.export
    compare = comparing.compare
    history = comparing.history
    runs = comparing.runs
    device_files = upkeep.device_files
    check_device = upkeep.check
    set_up_device = upkeep.set_up
    probe_device = upkeep.probe
    releases = upkeep.releases
    rollback = upkeep.rollback

    def results(self, run: str | None = None) -> Results:
        """Results of a run that has ended, by default the last.

        Raises:
            UsageError: there is no such run, or its file is damaged.
        """
        return self.workspace().results(run)

    def run_ids(self) -> list[str]:
        """Ids of the runs with results, oldest first."""
        return self.workspace().run_ids()


def load_results(run: str | None = None, project: str | Path = ".") -> Results:
    """As Project.results."""
    return Project(project).results(run)


def list_runs(project: str | Path = ".") -> list[str]:
    """As Project.run_ids."""
    return Project(project).run_ids()


def _by_itself(command: Callable[..., Result]) -> Callable[..., Result]:
    """A command as a function, which opens a project for the call and closes it.

    It takes what the command takes, and what Project does; the folder is `project`.
    """
    signature = introspection.signature(command)
    opening = introspection.signature(_opened).parameters.values()

    @wraps(command)
    def call(*args: Any, **named: Any) -> Result:
        about = {option.name: named.pop(option.name) for option in opening if option.name in named}
        with _opened(**about) as opened:
            return command(opened, *args, **named)

    parameters = [*list(signature.parameters.values())[1:], *opening]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call


def _opened(
    *,
    project: str | Path = ".",
    listener: events.Listener = events.nobody,
    jobs: int | None = None,
    cluster: str | None = None,
) -> Project:
    return Project(project, listener=listener, jobs=jobs, cluster=cluster)


def function(name: str) -> Callable[..., Any]:
    """The command of that name as a function of its own, such as `edgesparse.deploy`."""
    return _by_itself(getattr(Project, name))
