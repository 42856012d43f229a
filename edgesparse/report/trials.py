"""A search in the terminal: its front, and where the pipeline's own variants stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from edgesparse.measure.clock import formats_apart
from edgesparse.measure.trials import Sweep, Trial
from edgesparse.report.console import shown
from edgesparse.report.table import DASH, metric_text, ms_text, ratio_text, size_text


def print_sweep(found: Sweep, console: Console) -> None:
    """Print the front, the pipeline's own variants, and what became of the others."""
    tried = sum(trial.number is not None for trial in found.trials)
    title = f"{found.pipeline} on {found.device}: {tried} trials for {' and '.join(goals(found))}"
    console.print(shown(title, style="bold"))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    table.add_column("front", no_wrap=True)
    for objective in found.objectives:
        table.add_column(objective, justify="right", no_wrap=True)
    table.add_column("runtime", no_wrap=True)
    table.add_column("chosen", overflow="fold")
    for trial in found.front:
        name, *texts, chosen = trial_lines(found, trial)
        table.add_row(shown(name, style="green"), *map(shown, texts), shown(chosen))
    console.print(table)
    for line in sweep_notes(found):
        console.print(shown(line))


def goals(found: Sweep) -> list[str]:
    """Each objective with its direction."""
    pairs = zip(found.objectives, found.directions, strict=True)
    return [f"{'high' if d == 'maximize' else 'low'} {objective}" for objective, d in pairs]


def trial_lines(found: Sweep, trial: Trial) -> list[str]:
    """The texts of a trial: its name, each objective's value, the runtime, what was chosen."""
    values = [
        objective_text(objective, value, trial)
        for objective, value in zip(found.objectives, trial.values, strict=False)
    ]
    values += [DASH] * (len(found.objectives) - len(values))
    runtime = trial.row.runtime.name if trial.row else DASH
    return [trial.name, *values, runtime, chosen_text(trial)]


def chosen_text(trial: Trial) -> str:
    """What was chosen, by the last word of its place."""
    if trial.number is None:
        return "named in the pipeline"
    return ", ".join(f"{path.split('.')[-1]} {_short(v)}" for path, v in trial.chosen.items())


def objective_text(objective: str, value: float, trial: Trial) -> str:
    """A value as the tables have it, with its unit."""
    unit = unit_of(objective, trial)
    text = plain_text(objective, value, trial)
    return f"{text} {unit}" if unit and unit != "ms" else text


def unit_of(objective: str, trial: Trial) -> str:
    """Of an objective's values; sizes have theirs in the text."""
    if objective.endswith("_ms"):
        return "ms"
    name = objective.removesuffix("_drop")
    scores = trial.row.metrics if trial.row else []
    return next((score.unit for score in scores if score.name == name), "")


def plain_text(objective: str, value: float, trial: Trial) -> str:
    """A value without its unit."""
    if objective.endswith("bytes"):
        return size_text(round(value))
    if objective.endswith("_ms"):
        return ms_text(value)
    if objective == "speedup":
        return f"{ratio_text(value)}x"
    return metric_text(value, unit_of(objective, trial))


def sweep_notes(found: Sweep) -> list[str]:
    """Where the pipeline's own variants stand, what failed, and what the figures do not say."""
    front = {trial.name for trial in found.front}
    lines = []
    for trial in found.trials:
        if trial.number is None and trial.name not in front:
            other = found.beaten_by(trial)
            why = f"{other.name} is better" if other else trial.reason or "another is as good"
            lines.append(f"{trial.name} (in the pipeline): {why}")
    for status, told in (("over", "left out"), ("failed", "failed")):
        own = [t for t in found.trials if t.status == status and t.number is not None]
        if own:
            reasons = dict.fromkeys(trial.reason or "" for trial in own)
            lines.append(f"{len(own)} {told}: {'; '.join(list(reasons)[:3])}"[:300])
    rows = [trial.row for trial in found.trials if trial.row is not None]
    timed = any(objective.endswith("_ms") for objective in found.objectives)
    if timed and any(row.clock == "instructions" for row in rows):
        apart = formats_apart(rows, found.cpu)
        limit = f"; {apart}" if apart else ""
        lines.append(f"latencies there count instructions, not time{limit}")
    samples = max((s.samples for t in found.trials if t.row for s in t.row.metrics), default=0)
    if found.front and samples:
        lines.append(
            f"chosen by {samples} samples: the best of many look better on those than they are; "
            "look at others before you ship"
        )
    return lines


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("method") or value.get("scheme") or value.get("name") or "...")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + " ".join(_short(one) for one in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
