"""The .edgesparse folder: artifacts, runs, and which stages the last run of a pipeline had."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edgesparse.devices.agent.job import new_id
from edgesparse.graph.open_runs import goes_on
from edgesparse.graph.plan import Plan, differences
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
"""Names a folder for artifacts that several projects share, in place of each project's own."""


@dataclass(frozen=True)
class StageStatus:
    """Whether a stage will run, and why."""

    stage: Stage
    cached: bool
    why: str


class Workspace:
    """`root`/.edgesparse, and the store of artifacts, which $EDGESPARSE_STORE may place elsewhere;
    made when they are first written to."""

    def __init__(self, root: Path, shared: str | None = None) -> None:
        """`shared` is the URL of a store that other machines use, too."""
        self.project = root.resolve()
        self.folder = root / FOLDER
        self.runs = self.folder / "runs"
        self.store_folder = Path(os.environ.get(STORE_VARIABLE) or self.folder) / "store"
        self.shared = shared

    @cached_property
    def store(self) -> Store:
        """One for all: it remembers what it has looked at."""
        shared = Shared(self.shared) if self.shared else None
        return Store(self.store_folder, shared, self.project)

    def has(self, key: str | None) -> bool:
        """Whether an artifact is whole and in the store, which is not made for that."""
        if key is None or not (self.shared or self.store_folder.is_dir()):
            return False
        return self.store.has(key) and self.store.wrong(key) is None

    def new_run(self, name: str) -> str:
        """A fresh run id and its folder."""
        run = new_id(name)
        try:
            (self.runs / run).mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"{self.runs}: cannot be written: {error.strerror}") from None
        return run

    def run_ids(self) -> list[str]:
        """Runs with results, oldest first."""
        if not self.runs.is_dir():
            return []
        return sorted(p.parent.name for p in self.runs.glob("*/results.json"))

    def results(self, run: str | None = None) -> Results:
        """Results of a run, by default the last that has rows; its notes name later ones that have
        none. Raises UsageError where there is none."""
        known = self.run_ids()
        if not known:
            raise UsageError(f"{self.runs}: there are no runs yet; start one with 'make deploy'")
        if run is not None:
            if run not in known:
                raise UsageError(f"no run {run!r}{did_you_mean(run, known)}")
            return read_results(self.results_path(run))
        empty: list[Results] = []
        for name in reversed(known):
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
        """Of runs without rows, newest first, why they are not shown."""
        notes = []
        for results in empty:
            why = "has no rows" if results.finished else "was interrupted before it measured"
            if not results.finished and goes_on(self.runs / results.run):
                why = "goes on, and has measured nothing yet"
            notes.append(f"run {results.run} is newer, but {why}")
        return notes

    def results_path(self, run: str) -> Path:
        return self.runs / run / "results.json"

    def log_path(self, run: str) -> Path:
        return self.runs / run / "log.txt"

    def remember(self, loaded: Loaded[Pipeline], plan: Plan) -> None:
        """Keep the identities of a plan's stages, to explain the next one."""
        pipeline = loaded.spec.name
        known = self._known(pipeline)
        # By place and not by key: what is to be explained is why a key changed.
        for stage in plan.stages:
            for slot in _slots(stage):
                known[slot] = loaded.document.masked_in(stage.identity)
        replace_json(self._plan_path(pipeline), known, sort_keys=True)

    def status(self, loaded: Loaded[Pipeline], plan: Plan) -> list[StageStatus]:
        """Each stage as cached or to run, and why."""
        known = self._known(loaded.spec.name)
        found = []
        for stage in plan.stages:
            if self.has(stage.key):
                found.append(StageStatus(stage, True, "nothing it depends on has changed"))
                continue
            damaged = self.store.wrong(stage.key) if self.store_folder.is_dir() else None
            earlier = next((known[slot] for slot in _slots(stage) if slot in known), None)
            stale = self.store.stale(stage.key) if self.store_folder.is_dir() else None
            if stale is not None:
                why = f"{stale}, which your code reads, has changed"
            elif damaged is not None:
                why = f"what is in the store is damaged: {damaged}"
            elif earlier is None:
                why = "has not been run before"
            else:
                changes = differences(earlier, loaded.document.masked_in(stage.identity))
                why = listed(changes, 3, "; ") or "did not finish, or its artifact was removed"
            found.append(StageStatus(stage, False, why))
        return found

    def _plan_path(self, pipeline: str) -> Path:
        return self.folder / "plans" / f"{pipeline}.json"

    def _known(self, pipeline: str) -> dict[str, Any]:
        try:
            loaded = json.loads(self._plan_path(pipeline).read_text())
        except (OSError, ValueError):
            return {}
        return loaded if isinstance(loaded, dict) else {}


def _slots(stage: Stage) -> list[str]:
    """The places of a stage in its pipeline, which stay when its key changes."""
    runtime = stage.spec.get("runtime", {}).get("name", "")
    suffix = f" ({runtime})" if runtime else ""
    return [f"{stage.name} {variant}{suffix}" for variant in stage.variants] or [stage.name]
