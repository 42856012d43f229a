"""Runs stages in worker processes or on a cluster; those that use devices in this process, which
has the connections."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgesparse.graph import events
from edgesparse.graph.execution.pool import Workers
from edgesparse.graph.execution.worker_main import reason_of
from edgesparse.graph.store import READS, Store
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.safe.file_access import WRITTEN
from edgesparse.spec.safe.text import listed
from edgesparse.stages import kind
from edgesparse.stages.base.stage import Devices, PlanContext, Stage, StageContext


class Cluster(Protocol):
    """Other machines that run the stages which use no device."""

    @property
    def count(self) -> int:
        """The number of stages that can run on it in parallel."""

    def run_stage(self, stage: Stage, executor: Executor, listener: events.Listener) -> str | None:
        """Run a stage; see Executor.run_stage."""

    def interrupt(self) -> None:
        """Stop the running stages."""


@dataclass(frozen=True)
class Executor:
    """Runs the stages of one plan, for one device."""

    context: PlanContext
    devices: Devices | None
    """None on a cluster's workers, which run no stage that uses a device."""
    store: Store
    workers: Workers
    cluster: Cluster | None = None

    def parts(self, stage: Stage, folder: Path) -> dict[str, Any]:
        """Return the arguments of a StageContext that differ by stage."""
        inputs = {role: self.store.path(key) for role, key in stage.inputs.items()}
        return {"stage": stage, "inputs": inputs, "folder": folder}

    def run_stage(self, stage: Stage, listener: events.Listener) -> str | None:
        """Run a stage on this machine and store its artifact; returns the error if it failed.

        Of two runs that need the same artifact, the second waits for the first.
        """
        document = self.context.loaded.document
        # For people: secrets are masked here, while the key is a hash of the real values.
        about: dict[str, Any] = {"label": stage.label, **document.masked_in(stage.identity)}
        stop = None if self.devices is None else self.devices.stop
        try:
            with self.store.reserved(stage.key, stop) as stored:
                if not stored:
                    with self.store.create(stage.key, about) as folder:
                        self._check(stage)
                        about |= self._run(stage, folder, listener)
                        self._check(stage)
        except EdgesparseError as error:
            return document.masked(str(error))
        except Exception as error:
            return document.masked(self._logged(error))
        return None

    def interrupt(self) -> None:
        """Stop everything that is running; the waiting threads return."""
        if self.devices is not None and self.devices.stop is not None:
            self.devices.stop.set()
        self.workers.interrupt()
        if self.cluster is not None:
            self.cluster.interrupt()

    def _check(self, stage: Stage) -> None:
        """Raise EdgesparseError where the code or data that a stage loads differs from that in its
        key. Called before the stage, since this can be another machine, and after, since a file
        can have been edited."""
        stage_kind = kind(stage.name)
        if stage_kind.loads:
            self.context.inputs.check()
            if not stage_kind.in_child:
                self.context.inputs.check_task_code()

    def _run(self, stage: Stage, folder: Path, listener: events.Listener) -> dict[str, Any]:
        """Fill the folder; returns, for the manifest, the files that the user's code has read for
        the stage and its inputs."""
        parts = self.parts(stage, folder)  # Fetches inputs that only a shared store has.
        reads = self.store.reads(stage.inputs.values())
        self._fill(stage, parts, listener, reads)
        return {READS: dict(sorted(reads.items()))} if reads else {}

    def _fill(
        self,
        stage: Stage,
        parts: dict[str, Any],
        listener: events.Listener,
        reads: dict[str, str],
    ) -> None:
        stage_kind = kind(stage.name)

        def progress(share: float, text: str) -> None:
            listener(events.StageProgress(stage.label, share, text))

        def handle(value: Any) -> Any:
            assert stage_kind.handle_request is not None
            assert self.devices is not None
            return stage_kind.handle_request(stage, self.context, self.devices, value)

        if stage_kind.in_child:
            self.workers.call(
                f"{stage_kind.run.__module__}:run",
                self.context,
                parts,
                progress=progress,
                handle_request=handle,
                reads=reads,
            )
            if stage.name == "train":
                self._note_reads(reads, listener)
            return
        plan = self.context.of(stage)
        stage_kind.run(
            StageContext(
                plan=plan, devices=self.devices, progress=progress, request=handle, **parts
            )
        )

    def _note_reads(self, reads: Mapping[str, str], listener: events.Listener) -> None:
        """Note reads of the user's code that cannot be tracked."""
        if self.workers.unwatched:
            listener(events.Note(self.workers.unwatched))
        written = [name for name, digest in reads.items() if digest == WRITTEN]
        if written:
            listener(
                events.Note(
                    f"{listed(written, 3)}: changed during the training; the next run trains "
                    "again, since your code may have read it"
                )
            )

    def _logged(self, error: Exception) -> str:
        """Describe an unexpected error in a line; its traceback goes to the log."""
        log, text = self.workers.log, io.StringIO()
        with redirect_stderr(text):
            reason = reason_of(error, log)
        with suppress(OSError):  # The disk can be the cause of the error.
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a") as file:
                file.write(self.context.loaded.document.masked(text.getvalue()))
        return reason
