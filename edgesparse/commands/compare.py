"""Runs that are compared: which are meant, and what they say."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from edgesparse.commands.fleet.resources import Resources
from edgesparse.graph.fingerprints import revision
from edgesparse.graph.workspace import Workspace
from edgesparse.measure.comparison import Comparison, compare_runs, differences
from edgesparse.measure.results import Results, SchemaError
from edgesparse.spec.errors import UsageError, did_you_mean


def compare(
    project: Resources,
    before: str | Results | None = None,
    after: str | Results | None = None,
) -> Comparison:
    """Compare two runs row by row.

    Args:
        before: a run's id, or its beginning; a pipeline's name or file, whose last run counts; or a
            git revision, of which it is the last run. Default: the run before `after` of the same
            pipeline.
        after: the same; default: the last run.

    Raises:
        UsageError: there is no such run.
    """
    workspace = project.workspace()
    second = after if isinstance(after, Results) else _found(workspace, after, None)
    first = before if isinstance(before, Results) else _found(workspace, before, second)
    return compare_runs(first, second)


def history(project: Resources, pipeline: str) -> tuple[list[Results], list[list[str]]]:
    """Every run of a pipeline, oldest first, and what was changed since the one before.

    Args:
        pipeline: its name or file.

    Raises:
        UsageError: it has no runs.
    """
    workspace = project.workspace()
    name = _name(pipeline)
    results = [run for run in workspace.all_results() if run.pipeline == name]
    if not results:
        names = {run.pipeline for run in workspace.all_results()}
        raise UsageError(f"no run of a pipeline {name!r}{did_you_mean(name, names)}")
    changed: list[list[str]] = [[]]
    changed += [list(differences(a, b)) for a, b in pairwise(results)]
    return results, changed


def runs(project: Resources) -> list[Results]:
    """The results of every run that can be read, oldest first."""
    return project.workspace().all_results()


def outdated_runs(project: Resources) -> list[SchemaError]:
    """Runs whose results another version of edgesparse wrote, oldest first."""
    return project.workspace().outdated_runs()


def _name(pipeline: str) -> str:
    """Of a file its pipeline's name; else what it is called."""
    path = Path(pipeline)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return pipeline
    from edgesparse.spec.reading.load import load_pipeline

    return load_pipeline(path).spec.name


def _found(workspace: Workspace, what: str | None, later: Results | None) -> Results:
    """The run that is meant; one that is not `later`, and of its pipeline where nothing is said."""
    runs = [run for run in workspace.all_results() if later is None or run.run != later.run]
    if what is None:
        own = [run for run in runs if later is None or run.pipeline == later.pipeline]
        own = [run for run in own if later is None or run.started <= later.started]
        own = [run for run in own if run.rows] or own  # One that was interrupted says nothing.
        if not own:
            raise UsageError(f"{workspace.runs}: there is no run to compare with; name one")
        return own[-1]
    ids = [run for run in workspace.run_ids() if run.startswith(what)]
    if len(ids) == 1 or what in ids:
        return workspace.results(what if what in ids else ids[0])
    if ids:
        raise UsageError(f"{what!r} matches {len(ids)} run ids; type more of it")
    name = _name(what)
    named = [run for run in runs if run.pipeline == name]
    if not named:
        commit = revision(workspace.folder.parent, what)
        named = [run for run in runs if commit and run.commit.rstrip("+") == commit.rstrip("+")]
    if not named:
        known = [*{run.pipeline for run in runs}, *(run.run for run in runs)]
        raise UsageError(
            f"{what!r} is no run, no pipeline with a run, and no commit of which there is a run"
            f"{did_you_mean(what, known)}"
        )
    return ([run for run in named if run.rows] or named)[-1]
