"""The compare, history and runs commands: resolve runs by id, pipeline or commit."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from edgesparse.commands.fleet.resources import Resources
from edgesparse.graph.versions import revision
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
        before: a run's id or a prefix of it; a pipeline's name or file, for its last run; or a git
            revision, for the last run of it. Default: the run of the same pipeline before `after`.
        after: the same; default: the last run.

    Raises:
        UsageError: a run is unknown, ambiguous or of another schema.
    """
    workspace = project.workspace()
    second = after if isinstance(after, Results) else _resolve(workspace, after, None)
    first = before if isinstance(before, Results) else _resolve(workspace, before, second)
    return compare_runs(first, second)


def history(project: Resources, pipeline: str) -> tuple[list[Results], list[list[str]]]:
    """List the runs of a pipeline, oldest first, and name_or_id changed since the run before each.

    Args:
        pipeline: its name or file.

    Raises:
        UsageError: the pipeline has no runs.
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
    """Read the results of every run, oldest first, but for unreadable ones."""
    return project.workspace().all_results()


def outdated_runs(project: Resources) -> list[SchemaError]:
    """List runs whose results have another schema version, oldest first."""
    return project.workspace().outdated_runs()


def _name(pipeline: str) -> str:
    """Name of a pipeline that is given by name or file."""
    path = Path(pipeline)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return pipeline
    from edgesparse.spec.reading.load import load_pipeline

    return load_pipeline(path).spec.name


def _resolve(workspace: Workspace, name_or_id: str | None, later: Results | None) -> Results:
    """Resolve a run; by default the run of `later`'s pipeline before it."""
    runs = [run for run in workspace.all_results() if later is None or run.run != later.run]
    if name_or_id is None:
        earlier = [run for run in runs if later is None or run.pipeline == later.pipeline]
        earlier = [run for run in earlier if later is None or run.started <= later.started]
        earlier = [
            run for run in earlier if run.rows
        ] or earlier  # Skip interrupted runs without rows.
        if not earlier:
            raise UsageError(f"{workspace.runs}: no run to compare with; name a run")
        return earlier[-1]
    ids = [run for run in workspace.run_ids() if run.startswith(name_or_id)]
    if len(ids) == 1 or name_or_id in ids:
        return workspace.results(name_or_id if name_or_id in ids else ids[0])
    if ids:
        raise UsageError(f"{name_or_id!r} matches {len(ids)} run ids; type more of it")
    name = _name(name_or_id)
    named = [run for run in runs if run.pipeline == name]
    if not named:
        commit = revision(workspace.folder.parent, name_or_id)
        named = [run for run in runs if commit and run.commit.rstrip("+") == commit.rstrip("+")]
    if not named:
        names = [*{run.pipeline for run in runs}, *(run.run for run in runs)]
        raise UsageError(
            f"no run, pipeline or commit {name_or_id!r} with results"
            f"{did_you_mean(name_or_id, names)}"
        )
    return ([run for run in named if run.rows] or named)[-1]
