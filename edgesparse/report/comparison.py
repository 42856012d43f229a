"""Runs in the terminal and as JSON: a list, a comparison of two, a pipeline's history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console

from edgesparse.measure.comparison import Change, Comparison, keyed_rows, placement_of
from edgesparse.measure.results import Results, SchemaError
from edgesparse.measure.rows import PAYS_FROM, Row
from edgesparse.measure.selection import best_row
from edgesparse.report.rich_text import add_columns, plain_table, print_line, safe_text
from edgesparse.report.table import score_text
from edgesparse.report.units import DASH, ms_text, ratio_text, size_text

COMPARISON_TITLES = ("variant", "p50 ms", "ratio", "95 % CI", "metric", "size", "verdict")
HISTORY_TITLES = ("variant", "p50 trend", "p50 ms", "metric trend", "metric", "size")
_BARS = "▁▂▃▄▅▆▇█"


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the changes of each row, and what differs between the runs besides."""
    print_line(console, f"{comparison.before} -> {comparison.after}", "bold")
    print_line(console, " -> ".join(map(run_facts, comparison.started, comparison.commits)))
    for line in comparison.differences:
        print_line(console, f"changed: {line}")
    for placement in dict.fromkeys(change.placement for change in comparison.changes):
        console.print()
        print_line(console, placement, "bold cyan")
        for line in shared_lines(comparison, placement):
            print_line(console, line)
        table = plain_table()
        table.add_column("variant", overflow="fold")
        add_columns(table, COMPARISON_TITLES[1:-1])
        table.add_column(COMPARISON_TITLES[-1])
        for change in comparison.changes:
            if change.placement == placement:
                *texts, words = comparison_texts(change)
                table.add_row(*map(safe_text, texts), safe_text(words, verdict(change)[1]))
        console.print(table)
    for line in presence_lines(comparison):
        print_line(console, line, "yellow")
    style = "bold red" if comparison.regressed else "green"
    print_line(console, conclusion(comparison), style)


def run_facts(started: str, commit: str) -> str:
    """Describe when a run started, and from which commit."""
    text = f"{started[:16].replace('T', ' ')} UTC"
    return (
        f"{text}, commit {commit.rstrip('+')[:8]}{'+' * commit.endswith('+')}" if commit else text
    )


def conclusion(comparison: Comparison) -> str:
    """Name the outcome of a comparison."""
    return f"{'' if comparison.regressed else 'no '}significant regression"


def presence_lines(comparison: Comparison) -> list[str]:
    """Name the rows that only one of the runs has."""
    return [
        *(f"removed: {name}" for name in comparison.removed),
        *(f"new: {name}" for name in comparison.added),
    ]


def shared_lines(comparison: Comparison, placement: str) -> list[str]:
    """Describe the slowdown that all rows of a device and runtime have in common, if any."""
    ratio = comparison.shared.get(placement, 1.0)
    if 1 / PAYS_FROM < ratio < PAYS_FROM:
        return []
    return [f"latency of all rows changed by {ratio_text(ratio)}x; verdicts are relative to that"]


def comparison_texts(change: Change) -> list[str]:
    """List the texts of a row, as in `COMPARISON_TITLES`."""
    both = (change.before, change.after)
    interval = change.slowdown_ci95
    return [
        change.variant,
        _pair(map(_p50, both)),
        DASH if change.slowdown is None else f"{ratio_text(change.slowdown)}x",
        DASH if interval is None else "-".join(map(ratio_text, interval)),
        _pair(score_text(row.score) for row in both),
        _pair(map(_size, both)),
        verdict(change)[0],
    ]


def verdict(change: Change) -> tuple[str, str]:
    """Name what happened to a row, and the style to show it in."""
    if change.broken:
        return f"FAILED: {change.after.error}", "bold red"
    if change.after.status == "failed":
        return "still fails", "yellow"
    if change.before.status == "failed":
        return "works now", "green"
    outcomes = {
        "slower": change.slower,
        "less accurate": change.worse,
        "faster": change.faster,
        "more accurate": change.better,
    }
    words = [word for word, applies in outcomes.items() if applies]
    if change.unstable:
        words.append("time not compared: unstable")
        return ", ".join(words), "red" if change.regressed else "yellow"
    style = "red" if change.regressed else "green" if words else ""
    return ", ".join(words) or "unchanged", style


def _pair(texts: Iterable[str | None]) -> str:
    before, after = (text or DASH for text in texts)
    return before if before == after else f"{before} -> {after}"


def _p50(row: Row) -> str | None:
    return ms_text(row.latency_ms.p50) if row.latency_ms else None


def _size(row: Row) -> str | None:
    return size_text(row.model.bytes) if row.model else None


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """Convert a comparison to data for JSON."""
    return {
        "before": comparison.before,
        "after": comparison.after,
        "started": list(comparison.started),
        "commits": list(comparison.commits),
        "regressed": comparison.regressed,
        "shared": dict(comparison.shared),
        "differences": list(comparison.differences),
        "removed": list(comparison.removed),
        "added": list(comparison.added),
        "changes": [
            {
                "placement": change.placement,
                "variant": change.variant,
                "verdict": verdict(change)[0],
                "slowdown": change.slowdown,
                "slowdown_ci95": change.slowdown_ci95,
                "drop": change.drop,
                "p50_ms": [r.latency_ms.p50 if r.latency_ms else None
                           for r in (change.before, change.after)],
                "bytes": [r.model.bytes if r.model else None
                          for r in (change.before, change.after)],
                "regressed": change.regressed,
            }
            for change in comparison.changes
        ],
    }  # fmt: skip


def spark(values: Sequence[float | None]) -> str:
    """Draw values as bars, from the smallest to the largest; a blank for a missing value."""
    present = [value for value in values if value is not None]
    low, span = (min(present), max(present) - min(present)) if present else (0.0, 0.0)
    steps = len(_BARS) - 1
    return "".join(
        " " if v is None else _BARS[round(steps * (v - low) / span) if span else steps // 2]
        for v in values
    )


def run_records(
    runs: Sequence[Results], outdated: Sequence[SchemaError] = ()
) -> list[dict[str, Any]]:
    """Convert a list of runs to data for JSON, the oldest first.

    Args:
        outdated: runs of earlier versions, of which only the id and a status can be safe_text.
    """
    records = [
        {
            "run": run.run,
            "pipeline": run.pipeline,
            "started": run.started,
            "devices": [device.name for device in run.devices],
            "status": _status(run),
            "best": {
                device.name: best.variant
                for device in run.devices
                if (best := best_row((r for r in run.rows if r.device == device.name), run.gates))
            },
        }
        for run in runs
    ]
    for error in outdated:
        empty = {"pipeline": "", "started": "", "devices": [], "best": {}}
        records.append({"run": error.run, **empty, "status": error.status})
    return sorted(records, key=lambda record: str(record["run"]))


def _status(run: Results) -> str:
    if not run.finished:
        return "interrupted"
    failed = sum(row.status == "failed" for row in run.rows)
    if failed or run.failures:
        return f"{failed} of {len(run.rows)} rows failed" if failed else "failed"
    if not run.gates_met:
        return "gate not met"
    return "quick" if run.quick else "ok"


def print_runs(
    runs: Sequence[Results], console: Console, outdated: Sequence[SchemaError] = ()
) -> None:
    """Print a list of runs, the latest last, each with its status and its best variants."""
    table = plain_table()
    for title in ("run", "pipeline", "date", "devices", "status", "best"):
        table.add_column(title, overflow="fold", no_wrap=title in ("run", "date"))
    for record in run_records(runs, outdated):
        table.add_row(
            safe_text(record["run"]),
            safe_text(record["pipeline"]),
            safe_text(record["started"][:10]),
            safe_text(", ".join(record["devices"])),
            safe_text(record["status"], "" if record["status"] in ("ok", "quick") else "yellow"),
            safe_text(", ".join(dict.fromkeys(record["best"].values())) or DASH),
        )
    console.print(table)


def history_lines(runs: Sequence[Results]) -> dict[str, list[list[str]]]:
    """List the texts of each variant, as in `HISTORY_TITLES`, by device and runtime: latency and
    metric over the runs, the first and the last value."""
    series: dict[str, dict[str, list[Row | None]]] = {}
    for number, keyed in enumerate(keyed_rows(*runs)):
        for (placement, variant), row in keyed.items():
            rows = series.setdefault(placement, {}).setdefault(variant, [None] * len(runs))
            rows[number] = row if row.status == "ok" else None
    return {
        placement: [_history_texts(variant, rows) for variant, rows in variants.items()]
        for placement, variants in series.items()
    }


def _history_texts(variant: str, rows: Sequence[Row | None]) -> list[str]:
    present = [row for row in rows if row is not None]
    ends = (present[0], present[-1]) if present else ()
    return [
        variant,
        spark([row.latency_ms.p50 if row and row.latency_ms else None for row in rows]),
        _pair(map(_p50, ends)) if ends else DASH,
        spark([row.score.shown if row and row.score else None for row in rows]),
        _pair(score_text(row.score) for row in ends) if ends else DASH,
        _pair(map(_size, ends)) if ends else DASH,
    ]


def print_history(
    runs: Sequence[Results], changed: Sequence[Sequence[str]], console: Console
) -> None:
    """Print each variant over the runs of a pipeline, and what changed between them.

    Args:
        runs: of one pipeline, the oldest first.
        changed: for each run what changed since the run before.
    """
    for line in history_run_lines(runs, changed):
        print_line(console, line)
    for placement, variants in history_lines(runs).items():
        console.print()
        print_line(console, placement, "bold cyan")
        table = plain_table()
        table.add_column("variant", overflow="fold")
        add_columns(table, HISTORY_TITLES[1:], left=HISTORY_TITLES)
        for texts in variants:
            table.add_row(*map(safe_text, texts))
        console.print(table)


def history_run_lines(runs: Sequence[Results], changed: Sequence[Sequence[str]]) -> list[str]:
    """List the runs of a history with their numbers, and what changed in each."""
    return [
        f"{number}. {run.run}, {run_facts(run.started, run.commit)}"
        f"{' (quick)' if run.quick else ''}{': ' if lines else ''}{'; '.join(lines)}"
        for number, (run, lines) in enumerate(zip(runs, changed, strict=True), start=1)
    ]


def history_record(
    runs: Sequence[Results], changed: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """Convert a history to data for JSON: the runs, the oldest first."""
    return [
        {
            "run": run.run,
            "started": run.started,
            "commit": run.commit,
            "quick": run.quick,
            "changed": list(lines),
            "rows": [
                {
                    "placement": placement_of(row),
                    "variant": row.variant,
                    "status": row.status,
                    "p50_ms": row.latency_ms.p50 if row.latency_ms else None,
                    "metric": row.score.name if row.score else None,
                    "value": row.score.shown if row.score else None,
                    "bytes": row.model.bytes if row.model else None,
                }
                for row in run.rows
            ],
        }
        for run, lines in zip(runs, changed, strict=True)
    ]
