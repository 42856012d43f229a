"""Walks a plan's graph on this machine: what is in the store is not done again."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from edgesparse.pipeline import progress as told
from edgesparse.pipeline.context import Context
from edgesparse.pipeline.interrupt import deferred_interrupt
from edgesparse.pipeline.plan import Stage
from edgesparse.pipeline.stages import run_stage
from edgesparse.spec.errors import EdgesparseError


def execute(
    stages: Sequence[Stage], context: Context, log: Path, listener: told.Listener
) -> dict[str, str]:
    """Run every stage whose artifact is missing; each comes after its inputs. A failed stage fails
    what depends on it only.

    Whatever stages print goes to `log`.

    Returns:
        Errors by the key of the stage that failed or could not begin; the others are stored.
    """
    context.store.sweep()
    errors: dict[str, str] = {}
    total = len(stages)
    for number, stage in enumerate(stages, start=1):
        blocked = next((errors[key] for key in stage.inputs.values() if key in errors), None)
        if blocked is not None:
            errors[stage.key] = blocked
        elif context.store.has(stage.key):
            listener(told.StageDone(stage.label, number, total, cached=True))
        else:
            listener(told.StageStarted(stage.label, number, total))
            error = _attempt(stage, context, log, listener)
            if error is None:
                listener(told.StageDone(stage.label, number, total))
            else:
                errors[stage.key] = f"{stage.label}: {error}"
                listener(told.StageFailed(stage.label, stage.variants, error))
    return errors


def _attempt(stage: Stage, context: Context, log: Path, listener: told.Listener) -> str | None:
    about = {"label": stage.label, **stage.identity}
    try:
        with (
            _interruptible(stage) as check_interrupt,
            captured_output(log),
            context.store.create(stage.key, about) as folder,
        ):

            def progress(share: float, text: str) -> None:
                check_interrupt()
                listener(told.StageProgress(stage.label, share, text))

            run_stage(stage, context, folder, progress)
    except EdgesparseError as error:
        return str(error)
    except OSError as error:
        _write_traceback(log)
        return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    except Exception as error:
        # A stage runs the user's code and TensorFlow; what they raise is told in one line.
        _write_traceback(log)
        first = (str(error).strip().splitlines() or ["no message"])[0][:200]
        return f"{type(error).__name__}: {first} (details in {log})"
    return None


def _interruptible(stage: Stage) -> AbstractContextManager[Callable[[], None]]:
    if "tensorflow" in stage.libraries:
        return deferred_interrupt()
    return nullcontext(lambda: None)


def _write_traceback(log: Path) -> None:
    with log.open("a") as file:
        traceback.print_exc(file=file)


@contextmanager
def captured_output(log: Path) -> Iterator[None]:
    """Send what this process prints to `log`, also what TensorFlow's C++ parts print."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, target):
            os.close(descriptor)
