"""Figures and settings of results in the form that trackers take."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgesparse.measure.results import Results
from edgesparse.measure.rows import Row, metric_of
from edgesparse.measure.training_details import Training
from edgesparse.spec.pipeline import ROW_METRICS


def row_name(results: Results, row: Row) -> str:
    """Name a row uniquely within its run."""
    parts = [row.variant]
    parts += [row.device] if len(results.devices) > 1 else []
    parts += [row.runtime.name]
    parts += [f"{row.threads} threads"] if row.threads > 1 else []
    return " ".join(parts)


def row_figures(row: Row) -> dict[str, float]:
    """Collect a row's figures by name, with the ends of intervals as `_low` and `_high`."""
    names = [score.name for score in row.metrics]
    figures = {n: metric_of(row, n) for n in (*names, *(f"{n}_drop" for n in names), *ROW_METRICS)}
    for score in row.metrics:
        for name, ends in ((score.name, score.ci95), (f"{score.name}_drop", score.drop_ci95)):
            if ends is not None:
                figures |= {f"{name}_low": ends[0], f"{name}_high": ends[1]}
    if row.latency_ms is not None:
        figures["p50_ms_low"], figures["p50_ms_high"] = row.latency_ms.ci95
    return {tracker_name(n): float(value) for n, value in figures.items() if value is not None}


def row_settings(row: Row) -> dict[str, str]:
    """Collect the settings that a row was measured with, by name."""
    coverage = row.coverage
    settings = {
        "variant": row.variant,
        "device": row.device,
        "runtime": f"{row.runtime.name} {row.runtime.version}",
        "delegate": row.delegate,
        "threads": str(row.threads),
        "clock": row.clock,
        "compute_dtype": row.compute_dtype or "",
        "steps": ", ".join(row.steps),
        "storage": row.model.storage if row.model else "",
        "target_sparsity": f"{coverage.target:g}" if coverage else "",
    }
    return {name: text for name, text in settings.items() if text}


def curves(training: Training) -> Iterator[tuple[str, int, float]]:
    """Yield each value of a training's history: its name, the epoch (from 1) and the value."""
    for name, values in training.history.items():
        for epoch, value in enumerate(values, start=1):
            if value is not None:
                yield tracker_name(name), epoch, float(value)


def tracker_name(name: str) -> str:
    """Replace the characters that not every tracker takes in a name."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", name)[:200]
