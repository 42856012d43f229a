"""How a run looks while it goes on, on a terminal and in a pipe."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from edgesparse.pipeline import progress as told
from edgesparse.report.table import WIDTH

PIPED_INTERVAL_SECONDS = 10.0


def result_console() -> Console:
    """For results on stdout: WIDTH columns; no control codes unless it is a terminal."""
    return Console(file=sys.stdout, width=WIDTH, highlight=False, emoji=False, markup=False)


class Shown:
    """Shows progress on stderr: a bar on a terminal, now and then a line elsewhere.

    Draws on a duplicate of stderr, since stages have stderr itself redirected into their log.
    """

    def __enter__(self) -> told.Listener:
        self.stream: TextIO = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
        self.console = Console(file=self.stream, highlight=False, emoji=False, markup=False)
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.started = self.printed = time.monotonic()
        return self.tell

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_bar()
        self.stream.close()

    def tell(self, event: told.Told) -> None:
        if isinstance(event, told.StageStarted):
            self.started = self.printed = time.monotonic()
            if self.console.is_terminal:
                self._begin_bar(event.label)
            else:
                self._line(f"{_place(event.number, event.total)}{event.label} ...")
        elif isinstance(event, told.StageProgress):
            self._progress(event)
        elif isinstance(event, told.StageDone):
            self._end_bar()
            took = "cached" if event.cached else f"{time.monotonic() - self.started:.1f} s"
            self._line(f"{_place(event.number, event.total)}{event.label}: {took}")
        elif isinstance(event, told.StageFailed):
            self._end_bar()
            self._line(f"FAILED {event.label}: {event.error}", "red")
        else:
            self._line(event.text, "yellow")

    def _line(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)

    def _begin_bar(self, label: str) -> None:
        self._end_bar()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=self.console,
            transient=True,
        )
        # Without a total the bar only moves: not every stage can tell how far it is.
        self.task = self.bar.add_task(label, total=None, detail="")
        self.bar.start()

    def _end_bar(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _progress(self, event: told.StageProgress) -> None:
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, total=1.0, completed=event.share, detail=event.text)
            return
        now = time.monotonic()
        if now - self.printed < PIPED_INTERVAL_SECONDS or not 0 < event.share < 1:
            return
        self.printed = now
        left = (now - self.started) * (1 - event.share) / event.share
        minutes, seconds = divmod(round(left), 60)
        self._line(
            f"  {event.label}: {event.share:.0%}, {event.text}, {minutes}:{seconds:02d} left"
        )


def _place(number: int, total: int) -> str:
    return f"[{number}/{total}] " if total > 1 else ""
