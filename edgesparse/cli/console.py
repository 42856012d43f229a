"""Progress of a run on a terminal or in a pipe, and its results on stdout."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
)

from edgesparse.cli.options import say
from edgesparse.graph import events
from edgesparse.measure.results import Results
from edgesparse.report import formats, terminal
from edgesparse.report.rich_text import safe_text
from edgesparse.report.terminal import NARROW, WIDE, WIDTH
from edgesparse.spec.code.references import choose
from edgesparse.spec.errors import cause_of
from edgesparse.spec.pipeline import Tracking
from edgesparse.spec.safe.text import clean

if TYPE_CHECKING:
    from edgesparse.cli.page_server import LivePage
    from edgesparse.project import Project

# A log of a long run stays readable, and shows that it lives.
PIPED_INTERVAL_SECONDS = 10.0
_PACE_SECONDS = 60.0
"""The pace of this time gives the time left: stages have phases of different pace."""
_LEAST_REPORTS, _LEAST_SECONDS = 4, 3.0
"""Before that many reports and seconds no time left is shown."""


def result_console() -> Console:
    """Console for results on stdout: as wide as the terminal; in a pipe of fixed width and without
    control codes."""
    width = WIDTH
    if sys.stdout.isatty():
        width = min(max(shutil.get_terminal_size((WIDTH, 24)).columns, NARROW), WIDE)
    return Console(file=sys.stdout, width=width, highlight=False, emoji=False, markup=False)


def print_results(results: Results, style: str, *, notes: bool = False) -> None:
    """Print results on stdout as "table" (with all notes or their number), "markdown", "csv",
    "json", or by a plug-in."""
    if style == "table":
        terminal.print_results(results, result_console(), notes=notes)
    else:
        builtin = {"markdown": formats.markdown, "csv": formats.csv_text, "json": formats.json_text}
        sys.stdout.write(str(choose("reports", style, builtin)(results)))


@contextmanager
def open_project(
    *, jobs: int | None = None, cluster: str | None = None, live: events.Listener | None = None
) -> Iterator[Project]:
    """Open the project in the current folder and show its progress on stderr, and to `live`.

    Programs that call the CLI in-process can pass warm workers as click's `obj`.
    """
    from edgesparse.project import Project

    workers = click.get_current_context().find_root().obj
    with (
        ProgressDisplay() as show,
        Project(
            listener=events.both(show, live) if live else show,
            jobs=jobs,
            cluster=cluster,
            workers=workers,
        ) as project,
    ):
        yield project


def write_reports(
    project: Project, results: Results, tracking: Sequence[Tracking] = ()
) -> Path | None:
    """Write the page beside a run's results, and the run to its trackers. A failure of either does
    not fail the run.

    Returns:
        The page, or None where it could not be written.
    """
    import edgesparse

    path = project.workspace().results_path(results.run).with_name("page.html")
    page: Path | None = None
    if path.with_name("models").is_dir():
        say(f"models: {path.with_name('models')}", err=True)
    try:
        page = edgesparse.write_page(results, path)
        say(f"page: {page}", err=True)
    except Exception as error:  # Even a bug: the results are already printed.
        say(f"no page: {cause_of(error)}", err=True)
    for tracker in tracking:
        try:
            say(f"{tracker.name}: {edgesparse.track(results, tracker, path.parent)}", err=True)
        except Exception as error:
            say(f"not tracked by {tracker.name}: {cause_of(error)}", err=True)
    return page


def finish_run(
    project: Project,
    results: Results,
    live: LivePage | None,
    tracking: Sequence[Tracking] = (),
    *,
    as_json: bool,
    notes: bool,
) -> None:
    """Print a run's results, write its reports, and show its page to those who follow it live."""
    print_results(results, "json" if as_json else "table", notes=notes)
    page = write_reports(project, results, tracking)
    if live is not None:
        live.finish(page)


@dataclass
class _Running:
    """A running stage: when it started, when it last printed a line, its bar, and recent shares
    with their times."""

    started: float
    printed: float
    task: TaskID | None = None
    reports: deque[tuple[float, float]] = field(default_factory=deque)

    def left(self, now: float, share: float) -> str:
        """Estimate the time left from the pace of the last minute; empty while too little is known.

        The first report only starts the clock: before it the graph was compiled, which takes as
        long as hundreds of steps.
        """
        self.reports.append((now, share))
        while len(self.reports) > _LEAST_REPORTS and now - self.reports[1][0] > _PACE_SECONDS:
            self.reports.popleft()
        since, first = self.reports[0]
        enough = len(self.reports) >= _LEAST_REPORTS and now - since >= _LEAST_SECONDS
        if not enough or share <= first or share >= 1:
            return ""
        minutes, seconds = divmod(round((now - since) * (1 - share) / (share - first)), 60)
        return f"{minutes}:{seconds:02d} left"


class ProgressDisplay:
    """Progress on stderr: a bar for each running stage on a terminal, else a line now and then.

    Draws on a duplicate of stderr, since stages redirect stderr itself into their log.
    """

    def __enter__(self) -> events.Listener:
        self.stream: TextIO = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
        self.console = Console(file=self.stream, highlight=False, emoji=False, markup=False)
        if not self.console.is_terminal:
            self.console.width = WIDTH
        self.bars: Progress | None = None
        self.running: dict[str, _Running] = {}
        self.done: set[str] = set()
        return self.show

    def __exit__(self, *_: object) -> None:
        for label in list(self.running):
            self._end(label)
        self.stream.close()

    def show(self, event: events.RunEvent) -> None:
        if isinstance(event, events.StageStarted):
            now = time.monotonic()
            self._end(event.label)
            self.running[event.label] = _Running(now, now)
            if self.console.is_terminal:
                self._begin_bar(event.label)
            else:
                self._line(f"{_counter(event.number, event.total)}{event.label} ...")
        elif isinstance(event, events.StageProgress):
            self._progress(event)
        elif isinstance(event, events.StageDone):
            if event.cached and event.label in self.done:
                return  # Of the first rows, which this run has just created.
            self.done.add(event.label)
            started = self._end(event.label)
            took = "cached" if started is None else f"{time.monotonic() - started:.1f} s"
            self._line(f"{_counter(event.number, event.total)}{event.label}: {took}")
        elif isinstance(event, events.StageFailed):
            self._end(event.label)
            self._line(f"FAILED {event.label}: {event.error}", "red")
        elif isinstance(event, events.RowsReady):
            terminal.print_rows(event.results, self.console)
        elif isinstance(event, events.Note):
            self._line(event.text, "yellow")

    def _line(self, text: str, style: str = "") -> None:
        self.console.print(safe_text(text, style), soft_wrap=True)

    def _begin_bar(self, label: str) -> None:
        if self.bars is None:
            self.bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TaskProgressColumn(),
                TextColumn("{task.fields[left]}", markup=False),
                TextColumn("{task.fields[detail]}", markup=False),
                console=self.console,
                transient=True,
            )
            self.bars.start()
        # Without a total the bar only moves: not every stage knows its progress.
        self.running[label].task = self.bars.add_task(clean(label), total=None, detail="", left="")

    def _end(self, label: str) -> float | None:
        """Remove a stage's bar, and return when the stage started."""
        stage = self.running.pop(label, None)
        if stage is None:
            return None
        if self.bars is not None and stage.task is not None:
            self.bars.refresh()  # Even a short stage shows its progress.
            self.bars.remove_task(stage.task)
            if not self.running:
                self.bars.stop()
                self.bars = None
        return stage.started

    def _progress(self, event: events.StageProgress) -> None:
        stage = self.running.get(event.label)
        if stage is None:
            return
        now = time.monotonic()
        left = stage.left(now, event.share)
        if self.bars is not None and stage.task is not None:
            self.bars.update(
                stage.task, total=1.0, completed=event.share, detail=clean(event.text), left=left
            )
            return
        if now - stage.printed < PIPED_INTERVAL_SECONDS or not 0 < event.share < 1:
            return
        stage.printed = now
        texts = filter(None, [f"{event.share:.0%}", event.text, left])
        self._line(f"  {event.label}: {', '.join(texts)}")


def _counter(number: int, total: int) -> str:
    return f"[{number}/{total}] " if total > 1 else ""
