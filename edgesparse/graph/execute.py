"""Walks a plan's graph on this machine: what is in the store is not done again."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesparse.graph import progress as told
from edgesparse.graph.child import reason_of
from edgesparse.graph.store import Store
from edgesparse.graph.worker import Worker
from edgesparse.spec.errors import EdgesparseError
from edgesparse.stages import kind
from edgesparse.stages.base.stage import Access, Context, Stage, Work


@dataclass(frozen=True)
class Site:
    """Where and for whom stages are carried out."""

    context: Context
    access: Access
    store: Store
    worker: Worker

    def parts(self, stage: Stage, folder: Path) -> dict[str, Any]:
        """Of a Work: the stage, where its inputs lie, and its folder."""
        inputs = {role: self.store.path(key) for role, key in stage.inputs.items()}
        return {"stage": stage, "inputs": inputs, "folder": folder}


def execute(stages: Sequence[Stage], site: Site, listener: told.Listener) -> dict[str, str]:
    """Run every stage whose artifact is missing; each comes after its inputs. A failed stage fails
    what depends on it only.

    Whatever stages print goes to the worker's log.

    Returns:
        Errors by the key of the stage that failed or could not begin; the others are stored.
    """
    store = site.store
    # Before anything new is begun: half artifacts of a killed run take room.
    store.sweep()
    errors: dict[str, str] = {}
    total = len(stages)
    for number, stage in enumerate(stages, start=1):
        # The first cause is told, not that something before it is missing.
        blocked = next((errors[key] for key in stage.inputs.values() if key in errors), None)
        if blocked is not None:
            errors[stage.key] = blocked
            continue
        wrong = store.wrong(stage.key)
        if wrong is not None:
            text = f"{stage.label}: what is in the store is damaged ({wrong}); it is made again"
            listener(told.Note(text))
            store.discard(stage.key)
        if store.has(stage.key):
            listener(told.StageDone(stage.label, number, total, cached=True))
        else:
            listener(told.StageStarted(stage.label, number, total))
            error = _attempt(stage, site, listener)
            if error is None:
                listener(told.StageDone(stage.label, number, total))
            else:
                errors[stage.key] = f"{stage.label}: {error}"
                listener(told.StageFailed(stage.label, stage.variants, error))
    return errors


def _attempt(stage: Stage, site: Site, listener: told.Listener) -> str | None:
    """Carry out one stage; why it failed, if it did."""
    about = {"label": stage.label, **stage.identity}
    try:
        with site.store.create(stage.key, about) as folder:
            _run(stage, site, folder, listener)
    except EdgesparseError as error:
        return str(error)
    except Exception as error:
        log, told_there = site.worker.log, io.StringIO()
        with redirect_stderr(told_there):
            reason = reason_of(error, log)
        with suppress(OSError):  # The disk may be what the error is about.
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a") as file:
                file.write(told_there.getvalue())
        return reason
    return None


def _run(stage: Stage, site: Site, folder: Path, listener: told.Listener) -> None:
    own, parts = kind(stage.name), site.parts(stage, folder)

    def progress(share: float, text: str) -> None:
        listener(told.StageProgress(stage.label, share, text))

    def answer(value: Any) -> Any:
        assert own.answer is not None
        return own.answer(stage, site.context, site.access, value)

    # What only asks devices stays here, where their connections are.
    if own.in_child:
        function = f"edgesparse.stages.{stage.name}:run"
        site.worker.call(function, site.context, parts, progress=progress, answer=answer)
        return
    context = site.context.of(stage)
    own.run(Work(context=context, access=site.access, progress=progress, ask=answer, **parts))
