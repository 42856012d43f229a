"""What of results trackers take: numbers by name, over epochs, and settings as text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgesparse.measure.provenance import Training
from edgesparse.measure.results import Results
from edgesparse.measure.rows import Row, metric_of
from edgesparse.spec.pipeline import ROW_METRICS


def row_name(results: Results, row: Row) -> str:
    """A row's name among its run's."""
    parts = [row.variant]
    parts += [row.device] if len(results.devices) > 1 else []
    parts += [row.runtime.name]
    parts += [f"{row.threads} threads"] if row.threads > 1 else []
    return " ".join(parts)


def numbers(row: Row) -> dict[str, float]:
    """A row's figures by name; of metrics and drops also the ends of their intervals."""
    names = [score.name for score in row.metrics]
    found = {n: metric_of(row, n) for n in (*names, *(f"{n}_drop" for n in names), *ROW_METRICS)}
    for score in row.metrics:
        for name, ends in ((score.name, score.ci95), (f"{score.name}_drop", score.drop_ci95)):
            if ends is not None:
                found |= {f"{name}_low": ends[0], f"{name}_high": ends[1]}
    if row.latency_ms is not None:
        found["p50_ms_low"], found["p50_ms_high"] = row.latency_ms.ci95
    return {plain(name): float(value) for name, value in found.items() if value is not None}


def settings(results: Results, row: Row) -> dict[str, str]:
    """What a row is of."""
    coverage = row.coverage
    found = {
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
    return {name: text for name, text in found.items() if text}


def curves(training: Training) -> Iterator[tuple[str, int, float]]:
    """Each value of a training: its name, the epoch, from 1, and the value."""
    for name, values in training.history.items():
        for epoch, value in enumerate(values, start=1):
            if value is not None:
                yield plain(name), epoch, float(value)


def plain(name: str) -> str:
    """Letters, digits and what else every tracker takes in a name."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", name)[:200]
