"""Pages about several runs: two side by side, a pipeline over all of its own, or a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgesparse.measure.comparison import Comparison, place_of
from edgesparse.measure.results import Results
from edgesparse.measure.trials import Sweep
from edgesparse.report.comparison import comparison_lines, history_lines, shared_lines, verdict
from edgesparse.report.page.document import render, write
from edgesparse.report.trials import goals, sweep_notes, trial_lines


def write_comparison(found: Comparison, path: Path) -> Path:
    """Write the page of a comparison. Raises EdgesparseError where it cannot be written."""
    tables = []
    for place in dict.fromkeys(change.place for change in found.changes):
        own = [change for change in found.changes if change.place == place]
        rows = [(comparison_lines(c), "bad" if c.regressed else _style(c)) for c in own]
        columns = ("variant", "p50 ms", "times as long", "95 %", "metric", "size", "")
        tables.append((place, columns, rows))
    said = [f"changed: {line}" for line in found.differences]
    said += [f"{place}: {line}" for place, _, _ in tables for line in shared_lines(found, place)]
    said += [f"no more there: {name}" for name in found.gone]
    said += [f"new: {name}" for name in found.new]
    title = f"{found.before} → {found.after}"
    return write(path, render("several.html", title=title, said=said, tables=tables, charts=[]))


def _style(change: Any) -> str:
    return "good" if verdict(change)[1] == "green" else ""


def write_sweep(found: Sweep, path: Path) -> Path:
    """Write the page of a search. Raises EdgesparseError where it cannot be written."""
    from edgesparse.report.page.charts import front

    columns = ("", *found.objectives, "runtime", "chosen", "")
    best = {trial.name for trial in found.front}
    tables = []
    for place, own in (
        ("front", found.front),
        ("all", [trial for trial in found.trials if trial.name not in best]),
    ):
        rows = [
            ([*trial_lines(found, trial), trial.reason or ""], "good" if place == "front" else "")
            for trial in own
        ]
        # Why it is not there is told of the others only.
        last = -1 if place == "front" else None
        tables.append((place, columns[:last], [(texts[:last], style) for texts, style in rows]))
    charts = [(f"{x} and {y}", chart) for x, y, chart in front(found)]
    title = f"{found.pipeline} on {found.device}: {' and '.join(goals(found))}"
    given = {"title": title, "said": sweep_notes(found), "tables": tables, "charts": charts}
    return write(path, render("several.html", **given))


def write_history(runs: Sequence[Results], changed: Sequence[Sequence[str]], path: Path) -> Path:
    """Write the page of a pipeline over its runs. Raises EdgesparseError."""
    from edgesparse.report.page.charts import over_runs

    columns = ("variant", "p50", "ms", "metric", "", "size")
    tables = [
        (place, columns, [(line, "") for line in lines])
        for place, lines in history_lines(runs).items()
    ]
    said = [
        f"{run.run}{': ' if lines else ''}{'; '.join(lines)}"
        for run, lines in zip(runs, changed, strict=True)
    ]
    places = dict.fromkeys(place_of(row) for run in runs for row in run.rows)
    drawn = [(place, over_runs(place, runs)) for place in places]
    charts = [(place, chart) for place, chart in drawn if chart is not None]
    title = f"{runs[-1].pipeline}: {len(runs)} runs"
    return write(path, render("several.html", title=title, said=said, tables=tables, charts=charts))
