"""The runs that there are, two of them side by side, and one pipeline over its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from edgesparse.measure.comparison import Change, Comparison, place_of
from edgesparse.measure.results import Results, SchemaError
from edgesparse.measure.rows import PAYS_FROM, Row
from edgesparse.measure.selection import best_row
from edgesparse.report.console import shown
from edgesparse.report.table import metric_text, ms_text, ratio_text, size_text

_BARS = "▁▂▃▄▅▆▇█"


def print_comparison(found: Comparison, console: Console) -> None:
    """Print what changed, row by row, and what was changed between the runs."""
    console.print(shown(f"{found.before} -> {found.after}", style="bold"))
    for line in found.differences:
        console.print(shown(f"changed: {line}"))
    for place in dict.fromkeys(change.place for change in found.changes):
        console.print()
        console.print(shown(place, style="bold cyan"))
        for line in shared_lines(found, place):
            console.print(shown(line))
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
        table.add_column("variant", overflow="fold")
        for title in ("p50 ms", "times as long", "95 %", "metric", "size", ""):
            table.add_column(title, justify="right" if title else "left", no_wrap=bool(title))
        for change in found.changes:
            if change.place == place:
                *texts, words = comparison_lines(change)
                table.add_row(*map(shown, texts), shown(words, style=verdict(change)[1]))
        console.print(table)
    for title, names in (("no more there", found.gone), ("new", found.new)):
        for name in names:
            console.print(shown(f"{title}: {name}", style="yellow"))
    told = "regressed" if found.regressed else "nothing regressed beyond the intervals"
    console.print(shown(told, style="bold red" if found.regressed else "green"))


def shared_lines(found: Comparison, place: str) -> list[str]:
    """What all rows of a place have in common, where it is something."""
    ratio = found.shared.get(place, 1.0)
    if 1 / PAYS_FROM < ratio < PAYS_FROM:
        return []
    text = f"all rows took {ratio_text(ratio)} times as long; each is judged against that"
    return [text]


def comparison_lines(change: Change) -> list[str]:
    """The texts of a row: variant, p50, ratio, its interval, metric, size, verdict."""
    both = (change.before, change.after)
    return [
        change.variant,
        _pair([_p50(row) for row in both]),
        "-" if change.slowdown is None else f"{ratio_text(change.slowdown)}x",
        "-" if change.slowdown_ci95 is None else "-".join(map(ratio_text, change.slowdown_ci95)),
        _pair([_metric(row) for row in both]),
        _pair([size_text(row.model.bytes) if row.model else None for row in both]),
        verdict(change)[0],
    ]


def verdict(change: Change) -> tuple[str, str]:
    """What happened to a row, and the style that it is shown in."""
    if change.broken:
        return f"FAILED: {change.after.error}", "bold red"
    if change.after.status == "failed":
        return "still fails", "yellow"
    if change.before.status == "failed":
        return "works now", "green"
    words = [
        word
        for word, is_so in (
            ("slower", change.slower),
            ("less accurate", change.worse),
            ("faster", change.faster),
            ("more accurate", change.better),
        )
        if is_so
    ]
    if change.unstable:
        words.append("time not judged: unstable")
        return ", ".join(words), "red" if change.regressed else "yellow"
    return ", ".join(words) or "as before", "red" if change.regressed else "green" if words else ""


def _pair(texts: Sequence[str | None]) -> str:
    before, after = (text or "-" for text in texts)
    return before if before == after else f"{before} -> {after}"


def _p50(row: Row) -> str | None:
    return ms_text(row.latency_ms.p50) if row.latency_ms else None


def _metric(row: Row) -> str | None:
    score = row.score
    value = score.shown if score else None
    return None if score is None or value is None else metric_text(value, score.unit)


def comparison_record(found: Comparison) -> dict[str, Any]:
    """For JSON."""
    return {
        "before": found.before,
        "after": found.after,
        "regressed": found.regressed,
        "shared": dict(found.shared),
        "differences": list(found.differences),
        "gone": list(found.gone),
        "new": list(found.new),
        "changes": [
            {
                "place": one.place,
                "variant": one.variant,
                "verdict": verdict(one)[0],
                "slowdown": one.slowdown,
                "slowdown_ci95": one.slowdown_ci95,
                "lost": one.lost,
                "p50_ms": [r.latency_ms.p50 if r.latency_ms else None
                           for r in (one.before, one.after)],
                "bytes": [r.model.bytes if r.model else None for r in (one.before, one.after)],
                "regressed": one.regressed,
            }
            for one in found.changes
        ],
    }  # fmt: skip


def spark(values: Sequence[float | None]) -> str:
    """Values as bars, from the smallest to the largest; a blank for what is not there."""
    known = [value for value in values if value is not None]
    low, span = (min(known), max(known) - min(known)) if known else (0.0, 0.0)
    steps = len(_BARS) - 1
    return "".join(
        " " if v is None else _BARS[round(steps * (v - low) / span) if span else steps // 2]
        for v in values
    )


def run_records(
    runs: Sequence[Results], outdated: Sequence[SchemaError] = ()
) -> list[dict[str, Any]]:
    """Records of a list of runs for JSON, oldest first; those that are `outdated` have an id and a
    status only."""
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
    """Print the runs, the latest last, each with its status and its best variants."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    for title in ("run", "pipeline", "date", "devices", "status", "best"):
        table.add_column(title, overflow="fold", no_wrap=title in ("run", "date"))
    for one in run_records(runs, outdated):
        best = ", ".join(dict.fromkeys(one["best"].values()))
        texts = (
            one["run"],
            one["pipeline"],
            one["started"][:10],
            ", ".join(one["devices"]),
            one["status"],
            best or "-",
        )
        good = one["status"] in ("ok", "quick")
        table.add_row(*(shown(t, "" if n != 4 or good else "yellow") for n, t in enumerate(texts)))
    console.print(table)


def history_lines(runs: Sequence[Results]) -> dict[str, list[list[str]]]:
    """By place, a line for each variant: latency and metric over the runs, first and last."""
    found: dict[str, dict[str, list[Row | None]]] = {}
    for number, run in enumerate(runs):
        for row in run.rows:
            each = found.setdefault(place_of(row), {}).setdefault(row.variant, [None] * len(runs))
            each[number] = row if row.status == "ok" else None
    lines: dict[str, list[list[str]]] = {}
    for place, variants in found.items():
        for variant, rows in variants.items():
            times = [row.latency_ms.p50 if row and row.latency_ms else None for row in rows]
            scores = [row.score.shown if row and row.score else None for row in rows]
            there = [row for row in rows if row is not None]
            ends = (there[0], there[-1]) if there else ()
            lines.setdefault(place, []).append(
                [
                    variant,
                    spark(times),
                    _pair([_p50(row) for row in ends]) if ends else "-",
                    spark(scores),
                    _pair([_metric(row) for row in ends]) if ends else "-",
                    _pair([size_text(r.model.bytes) if r.model else None for r in ends])
                    if ends
                    else "-",
                ]
            )
    return lines


def print_history(
    runs: Sequence[Results], changed: Sequence[Sequence[str]], console: Console
) -> None:
    """Print each variant over the runs of a pipeline, and what was changed between them.

    Args:
        changed: for each run what was changed since the one before.
    """
    for run, lines in zip(runs, changed, strict=True):
        told = f": {'; '.join(lines)}" if lines else ""
        quick = " (quick)" if run.quick else ""
        console.print(shown(f"{run.run}{quick}{told}"))
    for place, variants in history_lines(runs).items():
        console.print()
        console.print(shown(place, style="bold cyan"))
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
        table.add_column("variant", overflow="fold")
        for title in ("p50", "ms", "metric", "", "size"):
            table.add_column(title, no_wrap=True)
        for texts in variants:
            table.add_row(*map(shown, texts))
        console.print(table)


def history_record(
    runs: Sequence[Results], changed: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """For JSON: the runs, oldest first."""
    return [
        {
            "run": run.run,
            "started": run.started,
            "commit": run.commit,
            "quick": run.quick,
            "changed": list(lines),
            "rows": [
                {
                    "place": place_of(row),
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
