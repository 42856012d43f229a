"""The .edgesparse folder: artifacts, runs, and the stages of each pipeline's last plan."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgesparse.devices.agent.job import new_id
from edgesparse.graph.open_runs import is_running
from edgesparse.graph.plan import Plan
from edgesparse.graph.shared_store import Shared
from edgesparse.graph.store import Store
from edgesparse.measure.results import Results, SchemaError, read_results
from edgesparse.spec.errors import EdgesparseError, UsageError, did_you_mean
from edgesparse.spec.pipeline import Pipeline
from edgesparse.spec.reading.load import Loaded
from edgesparse.spec.safe.files import replace_json
from edgesparse.spec.safe.text import listed
from edgesparse.stages.base.stage import Stage

FOLDER = ".edgesparse"
STORE_VARIABLE = "EDGESPARSE_STORE"
"""Environment variable with a folder for artifacts that several projects share."""


@dataclass(frozen=True)
class StageStatus:
    """The state of a stage: cached or to run, and why."""

    stage: Stage
    cached: bool
    why: str


class Workspace:
    """The folder `root`/.edgesparse, and the store of artifacts, which $EDGESPARSE_STORE can move;
    both are created when they are first written to."""

    def __init__(self, root: Path, shared: str | None = None) -> None:
        """`shared` is the URL of a store that other machines use, too."""
        self.project = root.resolve()
        self.folder = root / FOLDER
        self.runs = self.folder / "runs"
        self.store_folder = Path(os.environ.get(STORE_VARIABLE) or self.folder) / "store"
        self.shared = shared

    @cached_property
    def store(self) -> Store:
        """The store; a single one, since it caches its checks."""
        shared = Shared(self.shared) if self.shared else None
        return Store(self.store_folder, shared, self.project)

    def has(self, key: str | None) -> bool:
        """Return whether an artifact is stored and intact; does not create the store."""
        if key is None or not (self.shared or self.store_folder.is_dir()):
            return False
        return self.store.has(key) and self.store.damage(key) is None

    def new_run(self, name: str) -> str:
        """Create the folder of a new run; returns its id."""
        run = new_id(name)
        try:
            (self.runs / run).mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"{self.runs}: cannot be written: {error.strerror}") from None
        return run

    def run_ids(self) -> list[str]:
        """Return the ids of runs with results, oldest first."""
        if not self.runs.is_dir():
            return []
        return sorted(p.parent.name for p in self.runs.glob("*/results.json"))

    def results(self, run: str | None = None) -> Results:
        """Read the results of a run; by default of the last one with rows, whose notes name later
        ones without. Raises UsageError where there is none."""
        runs = self.run_ids()
        if not runs:
            raise UsageError(f"{self.runs}: no runs yet; start one with 'make deploy'")
        if run is not None:
            if run not in runs:
                raise UsageError(f"unknown run {run!r}{did_you_mean(run, runs)}")
            return read_results(self.results_path(run))
        empty: list[Results] = []
        for name in reversed(runs):
            results = read_results(self.results_path(name))
            if results.rows:
                return results.model_copy(update={"notes": self._later(empty) + results.notes})
            empty.append(results)
        return empty[0]

    def all_results(self) -> list[Results]:
        """Results of every run that can be read, oldest first."""
        runs = []
        for run in self.run_ids():
            # A damaged file, or one of another schema, does not hide the others.
            with suppress(EdgesparseError):
                runs.append(self.results(run))
        return runs

    def outdated_runs(self) -> list[SchemaError]:
        """Runs whose results have another schema version, oldest first."""
        errors = []
        for run in self.run_ids():
            try:
                self.results(run)
            except SchemaError as error:
                errors.append(error)
            except EdgesparseError:
                continue
        return errors

    def _later(self, empty: Sequence[Results]) -> list[str]:
        """Return notes on later runs without rows."""
        notes = []
        for results in empty:
            why = "has no rows" if results.finished else "was interrupted before it measured"
            if not results.finished and is_running(self.runs / results.run):
                why = "is running, without measurements yet"
            notes.append(f"run {results.run} is newer, but {why}")
        return notes

    def results_path(self, run: str) -> Path:
        return self.runs / run / "results.json"

    def log_path(self, run: str) -> Path:
        return self.runs / run / "log.txt"

    def remember(self, loaded: Loaded[Pipeline], plan: Plan) -> None:
        """Save the identities of a plan's stages, to explain the changes of the next one."""
        pipeline = loaded.spec.name
        identities = self._identities(pipeline)
        # By position, not by key: the change of the key is to be explained.
        for stage in plan.stages:
            for slot in _slots(stage):
                identities[slot] = loaded.document.masked_in(stage.identity)
        replace_json(self._plan_path(pipeline), identities, sort_keys=True)

    def status(self, loaded: Loaded[Pipeline], plan: Plan) -> list[StageStatus]:
        """Return the state of each stage."""
        identities = self._identities(loaded.spec.name)
        statuses = []
        for stage in plan.stages:
            if self.has(stage.key):
                statuses.append(StageStatus(stage, True, "unchanged"))
                continue
            damaged = self.store.damage(stage.key) if self.store_folder.is_dir() else None
            earlier = next((identities[slot] for slot in _slots(stage) if slot in identities), None)
            stale = self.store.stale(stage.key) if self.store_folder.is_dir() else None
            if stale is not None:
                why = f"{stale}, which your code reads, has changed"
            elif damaged is not None:
                why = f"stored artifact is damaged: {damaged}"
            elif earlier is None:
                why = "not run before"
            else:
                changes = differences(earlier, loaded.document.masked_in(stage.identity))
                why = listed(changes, 3, "; ") or "not finished, or its artifact was removed"
            statuses.append(StageStatus(stage, False, why))
        return statuses

    def _plan_path(self, pipeline: str) -> Path:
        return self.folder / "plans" / f"{pipeline}.json"

    def _identities(self, pipeline: str) -> dict[str, Any]:
        try:
            loaded = json.loads(self._plan_path(pipeline).read_text())
        except (OSError, ValueError):
            return {}
        return loaded if isinstance(loaded, dict) else {}


def _slots(stage: Stage) -> list[str]:
    """Return the positions of a stage in its pipeline, which stay when its key changes."""
    runtime = stage.spec.get("runtime", {}).get("name", "")
    suffix = f" ({runtime})" if runtime else ""
    return [f"{stage.name} {variant}{suffix}" for variant in stage.variants] or [stage.name]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """Return the differences between two identities of a stage, a line each."""
    lines = []
    # Sorted, so that the same change always gives the same text.
    for name in sorted({*old, *new}):
        before, after, here = old.get(name), new.get(name), f"{path}{name}"
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{here}.")
        elif here.startswith("inputs."):
            lines.append(f"its {name} changed")
        elif name == "digest":
            lines.append(f"{here}: the files changed")
        else:
            lines.append(f"{here}: {_short(before)} -> {_short(after)}")
    return lines


def _short(value: Any) -> str:
    text = "none" if value is None else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
