"""Where stages run: each in a worker process here, or on a cluster; those that ask devices in this
process, where the connections are."""

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
from edgesparse.stages.base.stage import Context, Devices, Stage, Work


class Cluster(Protocol):
    """Other machines that run the stages which ask no device."""

    @property
    def count(self) -> int:
        """How many stages can run there at the same time."""

    def run_stage(self, stage: Stage, executor: Executor, listener: events.Listener) -> str | None:
        """As Executor.run_stage."""

    def interrupt(self) -> None:
        """End what is running."""


@dataclass(frozen=True)
class Executor:
    """Runs the stages of one plan, for one device."""

    context: Context
    devices: Devices | None
    """None on a cluster's workers, which run no stage that asks a device."""
    store: Store
    workers: Workers
    cluster: Cluster | None = None

    def parts(self, stage: Stage, folder: Path) -> dict[str, Any]:
        """Of a Work: the stage, where its inputs lie, and its folder."""
        inputs = {role: self.store.path(key) for role, key in stage.inputs.items()}
        return {"stage": stage, "inputs": inputs, "folder": folder}

    def run_stage(self, stage: Stage, listener: events.Listener) -> str | None:
        """Run one stage on this machine and store its artifact; the error if it failed.

        Two runs that need the same artifact do not make it twice: the second waits.
        """
        document = self.context.loaded.document
        # For people: its hash is that of the values themselves.
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
        """End everything that is running; the waiting threads return."""
        if self.devices is not None and self.devices.stop is not None:
            self.devices.stop.set()
        self.workers.interrupt()
        if self.cluster is not None:
            self.cluster.interrupt()

    def _check(self, stage: Stage) -> None:
        """Raise EdgesparseError where what a stage loads is not what its key was made of: before,
        since it may be another machine's, and after, since somebody may have edited it."""
        stage_kind = kind(stage.name)
        if stage_kind.loads:
            self.context.inputs.check()
            if not stage_kind.in_child:
                self.context.inputs.check_task_code()

    def _run(self, stage: Stage, folder: Path, listener: events.Listener) -> dict[str, Any]:
        """Fill the folder; what the user's code has read for that, and for its inputs."""
        parts = self.parts(stage, folder)  # What only a shared store has is fetched here.
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

        def answer(value: Any) -> Any:
            assert stage_kind.answer is not None
            assert self.devices is not None
            return stage_kind.answer(stage, self.context, self.devices, value)

        if stage_kind.in_child:
            function = f"edgesparse.stages.{stage.name}:run"
            self.workers.call(
                function, self.context, parts, progress=progress, answer=answer, reads=reads
            )
            if stage.name == "train":
                self._say_reads(reads, listener)
            return
        context = self.context.of(stage)
        work = Work(context=context, devices=self.devices, progress=progress, ask=answer, **parts)
        stage_kind.run(work)

    def _say_reads(self, reads: Mapping[str, str], listener: events.Listener) -> None:
        """Say what is not known of what the user's code has read."""
        if self.workers.unwatched:
            listener(events.Note(self.workers.unwatched))
        unsteady = [name for name, digest in reads.items() if digest == WRITTEN]
        if unsteady:
            listener(
                events.Note(
                    f"{listed(unsteady, 3)}: changed in the middle of the training; the next run "
                    "trains again, since your code may have read it"
                )
            )

    def _logged(self, error: Exception) -> str:
        """One line for an unexpected error, whose traceback goes to the log."""
        log, text = self.workers.log, io.StringIO()
        with redirect_stderr(text):
            reason = reason_of(error, log)
        with suppress(OSError):  # The disk may be what the error is about.
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a") as file:
                file.write(text.getvalue())
        return reason
