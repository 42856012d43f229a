"""Pages about several runs: a comparison of two, a pipeline's history, a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgesparse.measure.comparison import Change, Comparison, keyed_rows
from edgesparse.measure.results import Results
from edgesparse.measure.trials import SearchResult
from edgesparse.report.comparison import (
    COMPARISON_TITLES,
    HISTORY_TITLES,
    comparison_texts,
    conclusion,
    history_lines,
    history_run_lines,
    presence_lines,
    run_facts,
    shared_lines,
    verdict,
)
from edgesparse.report.page.document import render, write
from edgesparse.report.trials import goals, search_notes, trial_texts

_TEMPLATE = "overview.html"


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the page of a comparison.

    Raises:
        EdgesparseError: the file cannot be written.
    """
    from edgesparse.report.page.change_charts import change_charts

    tables, charts = [], []
    for placement in dict.fromkeys(change.placement for change in comparison.changes):
        changes = [change for change in comparison.changes if change.placement == placement]
        charts += change_charts(placement, changes)
        rows = [(comparison_texts(change), _style(change)) for change in changes]
        tables.append((placement, COMPARISON_TITLES, rows))
    ids = (comparison.before, comparison.after)
    notes = [
        f"{word}: {run}, {run_facts(started, commit)}"
        for word, run, started, commit in zip(
            ("before", "after"), ids, comparison.started, comparison.commits, strict=True
        )
    ]
    notes += [f"changed: {line}" for line in comparison.differences]
    notes += [
        f"{placement}: {line}"
        for placement, _, _ in tables
        for line in shared_lines(comparison, placement)
    ]
    notes += presence_lines(comparison)
    outcome = (conclusion(comparison), not comparison.regressed)
    title = f"{comparison.before} → {comparison.after}"
    content: dict[str, Any] = {"title": title, "outcome": outcome, "notes": notes}
    return write(path, render(_TEMPLATE, **content, tables=tables, charts=charts))


def _style(change: Change) -> str:
    if change.regressed:
        return "bad"
    return "good" if verdict(change)[1] == "green" else ""


def write_search(search: SearchResult, path: Path) -> Path:
    """Write the page of a search.

    Raises:
        EdgesparseError: the file cannot be written.
    """
    from edgesparse.report.page.charts import front

    titles = ("trial", *search.objectives, "runtime", "parameters")
    best = {trial.name for trial in search.front}
    others = [trial for trial in search.trials if trial.name not in best]
    tables = [
        ("front", titles, [(trial_texts(search, trial), "good") for trial in search.front]),
        (
            "other trials",
            (*titles, "reason"),
            [([*trial_texts(search, trial), trial.reason or ""], "") for trial in others],
        ),
    ]
    title = f"{search.pipeline} on {search.device}: {goals(search)}"
    content: dict[str, Any] = {
        "notes": search_notes(search),
        "tables": tables,
        "charts": front(search),
    }
    return write(path, render(_TEMPLATE, title=title, **content))


def write_history(runs: Sequence[Results], changed: Sequence[Sequence[str]], path: Path) -> Path:
    """Write the page of a pipeline's runs.

    Args:
        runs: of one pipeline, the oldest first.
        changed: for each run what changed since the run before.

    Raises:
        EdgesparseError: the file cannot be written.
    """
    from edgesparse.report.page.change_charts import history_charts

    tables = [
        (placement, HISTORY_TITLES, [(texts, "") for texts in lines])
        for placement, lines in history_lines(runs).items()
    ]
    placements = dict.fromkeys(placement for rows in keyed_rows(*runs) for placement, _ in rows)
    charts = [chart for placement in placements for chart in history_charts(placement, runs)]
    content: dict[str, Any] = {
        "title": f"{runs[-1].pipeline}: {len(runs)} runs",
        "notes": history_run_lines(runs, changed),
        "tables": tables,
        "charts": charts,
    }
    return write(path, render(_TEMPLATE, **content))
