"""Progress of a run: what is running and what was last, and how a notebook shows it."""

from __future__ import annotations

import html
import sys
import time
from collections import deque
from typing import Any

from edgesparse.graph import events
from edgesparse.spec.safe.text import clean

LINES = 12
"""Finished stages and messages that are kept, the latest last."""
_INTERVAL_SECONDS = 0.25
"""Least time between two updates of a notebook."""


class RunProgress:
    """The stages that are running, with their progress, and the last lines about others."""

    def __init__(self) -> None:
        self.running: dict[str, str] = {}
        self.lines: deque[str] = deque(maxlen=LINES)

    def take(self, event: events.RunEvent) -> bool:
        """Take an event; False where it is about rows."""
        if isinstance(event, events.StageStarted):
            self.running[event.label] = ""
        elif isinstance(event, events.StageProgress):
            self.running[event.label] = f"{event.share:.0%}, {event.text}".rstrip(", ")
        elif isinstance(event, events.StageDone):
            self.running.pop(event.label, None)
            self.lines.append(f"{event.label}: {'cached' if event.cached else 'done'}")
        elif isinstance(event, events.StageFailed):
            self.running.pop(event.label, None)
            self.lines.append(f"FAILED {event.label}: {event.error}")
        elif isinstance(event, events.Note):
            self.lines.append(event.text)
        else:
            return False
        return True


class NotebookProgress:
    """A listener that shows progress under the cell that runs, in one output that is replaced."""

    def __init__(self) -> None:
        self._progress = RunProgress()
        self._handle: Any = None
        self._shown = float("-inf")

    def __call__(self, event: events.RunEvent) -> None:
        now = time.monotonic()
        frequent = isinstance(event, events.StageProgress)
        if not self._progress.take(event) or (frequent and now - self._shown < _INTERVAL_SECONDS):
            return
        self._shown = now
        from IPython.display import HTML, display

        shown = HTML(self.text())
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def text(self) -> str:
        """Format the progress as HTML."""
        lines = [html.escape(clean(line)) for line in self._progress.lines]
        lines += [
            f"<b>{html.escape(clean(label))}</b> {html.escape(clean(text))}"
            for label, text in self._progress.running.items()
        ]
        return "<pre>{}</pre>".format("\n".join(lines))


def default_listener() -> events.Listener:
    """Return a listener that shows progress where the caller is a Jupyter notebook; elsewhere one
    that ignores every event."""
    module: Any = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    if getattr(shell, "kernel", None) is None:
        return events.null_listener
    return NotebookProgress()
