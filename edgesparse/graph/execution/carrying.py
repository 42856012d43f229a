"""One stage carried out, and what became of it."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesparse.graph import progress as told
from edgesparse.graph.execution.child import reason_of
from edgesparse.graph.execution.pool import Workers
from edgesparse.graph.store import Store
from edgesparse.spec.errors import EdgesparseError
from edgesparse.stages import kind
from edgesparse.stages.base.stage import Access, Context, Stage, Work


@dataclass(frozen=True)
class Site:
    """Where and for whom stages are carried out."""

    context: Context
    access: Access
    store: Store
    workers: Workers

    def parts(self, stage: Stage, folder: Path) -> dict[str, Any]:
        """Of a Work: the stage, where its inputs lie, and its folder."""
        inputs = {role: self.store.path(key) for role, key in stage.inputs.items()}
        return {"stage": stage, "inputs": inputs, "folder": folder}


def carry_out(stage: Stage, site: Site, listener: told.Listener) -> str | None:
    """Carry out one stage and store what it leaves; why it failed, if it did."""
    about = {"label": stage.label, **stage.identity}
    try:
        with site.store.create(stage.key, about) as folder:
            _run(stage, site, folder, listener)
    except EdgesparseError as error:
        return str(error)
    except Exception as error:
        log, told_there = site.workers.log, io.StringIO()
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
        site.workers.call(function, site.context, parts, progress=progress, answer=answer)
        return
    context = site.context.of(stage)
    own.run(Work(context=context, access=site.access, progress=progress, ask=answer, **parts))
