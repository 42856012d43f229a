"""A search in the terminal: its Pareto front, and how the pipeline's own variants compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

from edgesparse.measure.instruction_counts import incomparable_formats
from edgesparse.measure.trials import SearchResult, Trial
from edgesparse.report.rich_text import add_columns, plain_table, print_line, safe_text
from edgesparse.report.units import DASH, metric_text, ms_text, ratio_text, size_text

MAX_REASONS = 3
"""Reasons of failed trials that are listed."""
_MAX_LINE = 300


def print_search(search: SearchResult, console: Console) -> None:
    """Print the front, then notes on the pipeline's own variants and on failed trials."""
    count = sum(trial.number is not None for trial in search.trials)
    title = f"{search.pipeline} on {search.device}: {count} trials, {goals(search)}"
    print_line(console, title, "bold")
    table = plain_table()
    table.add_column("front", no_wrap=True)
    add_columns(table, [*search.objectives, "runtime"], left=["runtime"])
    table.add_column("parameters", overflow="fold")
    for trial in search.front:
        name, *texts = trial_texts(search, trial)
        table.add_row(safe_text(name, style="green"), *map(safe_text, texts))
    console.print(table)
    for line in search_notes(search):
        print_line(console, line)


def goals(search: SearchResult) -> str:
    """Name the objectives with their directions."""
    pairs = zip(search.directions, search.objectives, strict=True)
    return ", ".join(f"{direction} {objective}" for direction, objective in pairs)


def trial_texts(search: SearchResult, trial: Trial) -> list[str]:
    """List a trial's texts: name, value of each objective, runtime, parameters."""
    values = [
        objective_text(objective, value, trial)
        for objective, value in zip(search.objectives, trial.values, strict=False)
    ]
    values += [DASH] * (len(search.objectives) - len(values))
    runtime = trial.row.runtime.name if trial.row else DASH
    return [trial.name, *values, runtime, parameters_text(trial)]


def parameters_text(trial: Trial) -> str:
    """List a trial's parameters, each by the last part of its path in the variant."""
    if trial.number is None:
        return "variant of the pipeline"
    return ", ".join(f"{path.split('.')[-1]} {_short(v)}" for path, v in trial.chosen.items())


def objective_text(objective: str, value: float, trial: Trial) -> str:
    """Format an objective's value with its unit."""
    unit = unit_of(objective, trial)
    text = value_text(objective, value, trial)
    return f"{text} {unit}" if unit and unit != "ms" else text


def unit_of(objective: str, trial: Trial) -> str:
    """Return the unit of an objective's values; sizes have theirs in the text."""
    if objective.endswith("_ms"):
        return "ms"
    name = objective.removesuffix("_drop")
    scores = trial.row.metrics if trial.row else []
    return next((score.unit for score in scores if score.name == name), "")


def value_text(objective: str, value: float, trial: Trial) -> str:
    """Format an objective's value without its unit."""
    if objective.endswith("bytes"):
        return size_text(round(value))
    if objective.endswith("_ms"):
        return ms_text(value)
    if objective == "speedup":
        return f"{ratio_text(value)}x"
    return metric_text(value, unit_of(objective, trial))


def search_notes(search: SearchResult) -> list[str]:
    """Say why variants of the pipeline are not on the front, why trials failed, and what limits the
    figures."""
    return [*_variant_notes(search), *_failure_notes(search), *_caveats(search)]


def _variant_notes(search: SearchResult) -> Iterator[str]:
    front = {trial.name for trial in search.front}
    for trial in search.trials:
        if trial.number is None and trial.name not in front:
            better = search.dominated_by(trial)
            reason = f"{better.name} is better" if better else trial.reason or "equal to another"
            yield f"{trial.name} (variant of the pipeline): {reason}"


def _failure_notes(search: SearchResult) -> Iterator[str]:
    for status, outcome in (("infeasible", "beyond the constraints"), ("failed", "failed")):
        trials = [t for t in search.trials if t.status == status and t.number is not None]
        if trials:
            reasons = list(dict.fromkeys(trial.reason or "" for trial in trials))[:MAX_REASONS]
            yield f"{len(trials)} trials {outcome}: {'; '.join(reasons)}"[:_MAX_LINE]


def _caveats(search: SearchResult) -> Iterator[str]:
    rows = [trial.row for trial in search.trials if trial.row is not None]
    is_timed = any(objective.endswith("_ms") for objective in search.objectives)
    if is_timed and any(row.clock == "instructions" for row in rows):
        reason = incomparable_formats(rows, search.cpu)
        yield "latencies are instruction counts (simulated)" + (f"; {reason}" if reason else "")
    samples = max((score.samples for row in rows for score in row.metrics), default=0)
    if search.front and samples:
        yield (
            f"selected on {samples} test samples: the best of many trials look better on these "
            "than they are; evaluate on other data before release"
        )


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("method") or value.get("scheme") or value.get("name") or "...")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + " ".join(map(_short, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
