"""The page of a run that goes on: its rows as they arrive."""

from __future__ import annotations

import statistics
import threading
from dataclasses import dataclass, field

from edgesparse.graph import events
from edgesparse.graph.progress import RunProgress
from edgesparse.measure.rows import Row
from edgesparse.report.page.document import render
from edgesparse.report.table import score_text
from edgesparse.report.units import DASH, ms_text, percent_text, size_text

Key = tuple[str, str, int, str]
"""Device, runtime, threads, variant."""


@dataclass
class _LiveRow:
    """A variant on a placement: the facts of its file, a provisional time, medians by round."""

    row: Row | None = None
    medians_ms: dict[int, float] = field(default_factory=dict)
    rounds: int = 0
    is_final: bool = False

    def texts(self) -> tuple[str, ...]:
        """Size, zeros, metric, p50 and what that is of."""
        model, score = (self.row.model, self.row.score) if self.row else (None, None)
        value = score_text(score)
        p50, state = DASH, "ready"
        if self.row is not None and self.row.status == "failed":
            state = f"failed: {self.row.error}"
        elif self.is_final and self.row is not None and self.row.latency_ms is not None:
            p50, state = ms_text(self.row.latency_ms.p50), "measured"
        elif self.medians_ms:
            p50 = ms_text(statistics.median(self.medians_ms.values()))
            state = f"{len(self.medians_ms)} of {self.rounds} rounds so far"
        elif self.row is not None and self.row.latency_ms is not None:
            p50, state = ms_text(self.row.latency_ms.p50), "provisional"
        return (
            size_text(model.bytes) if model else DASH,
            percent_text(model.sparsity) if model else DASH,
            f"{score.name} {value} {score.unit}".strip() if score and value else DASH,
            p50,
            state,
        )


class LiveRun:
    """The state of a run, from its events; any thread can render it."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._rows: dict[Key, _LiveRow] = {}
        self._progress = RunProgress()
        self._lock = threading.Lock()

    def listen(self, event: events.RunEvent) -> None:
        """Take an event of the run."""
        with self._lock:
            if self._progress.take(event):
                return
            if isinstance(event, events.RoundMeasured):
                key = (event.device, event.runtime, event.threads, event.variant)
                row = self._rows.setdefault(key, _LiveRow())
                row.medians_ms[event.round] = event.p50_ms
                row.rounds = event.rounds
            elif isinstance(
                event, events.RowsReady | events.BenchmarkStarted | events.BenchmarkDone
            ):
                for ready in event.rows:
                    key = (ready.device, ready.runtime.name, ready.threads, ready.variant)
                    row = self._rows.setdefault(key, _LiveRow())
                    row.row, row.is_final = ready, isinstance(event, events.BenchmarkDone)

    def html(self) -> str:
        """Render the page."""
        with self._lock:
            groups: dict[str, list[tuple[str, ...]]] = {}
            rows = [row.row for row in self._rows.values() if row.row is not None]
            simulated = {row.device for row in rows if row.clock == "instructions"}
            for (device, runtime, threads, variant), row in self._rows.items():
                title = f"{device} | {runtime} | {threads} thread{'s' * (threads > 1)}"
                if device in simulated:
                    title += " | time = instruction count (simulated)"
                groups.setdefault(title, []).append((variant, *row.texts()))
            running, lines = dict(self._progress.running), list(self._progress.lines)
        return render(
            "live.html", script_file="live.js", title=self.title, groups=groups, running=running,
            lines=lines, live=True,
        )  # fmt: skip
