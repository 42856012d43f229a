"""Verdicts under the tables: does sparsity pay, which variant is best, how much do seeds matter."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgesparse.measure.instruction_counts import incomparable_formats
from edgesparse.measure.results import Results
from edgesparse.measure.rows import PAYS_FROM, Row
from edgesparse.measure.selection import best_row, recommend
from edgesparse.report.table import blocks
from edgesparse.report.units import DASH, ms_text, ratio_text, size_text

SMALLER_FROM = 1.05
"""Smallest ratio of file sizes that counts as smaller."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdict:
    """A line about a sparse variant; `pays` where its sparsity saves time."""

    text: str
    pays: bool


def verdicts(results: Results) -> list[Verdict]:
    """Compare each sparse variant with its dense counterpart, in time (by interval) and in size."""
    return [
        verdict
        for block in blocks(results)
        for row in block.rows
        if (verdict := _verdict(row, {r.variant: r for r in block.rows}, results)) is not None
    ]


def _verdict(row: Row, rows: dict[str, Row], results: Results) -> Verdict | None:
    speedup = row.speedup_vs_dense
    if row.status != "ok" or speedup is None or row.model is None:
        return None
    dense = rows.get(speedup.baseline)
    ratio = dense.model.bytes / row.model.bytes if dense and dense.model else 1.0
    smaller = f", {ratio:.1f}x smaller" if ratio > SMALLER_FROM else ""
    # As shown: an interval that reads "0.97-1.00x" must not be called a loss.
    low, high = (float(ratio_text(limit)) for limit in speedup.ci95)
    pays = low > 1 and speedup.ratio >= PAYS_FROM
    cause = _cause(row, dense)
    saves = "save" if " and " in cause else "saves"
    if pays and cause == "sparsity" and row.zeros_exploited is False:
        outcome = "faster, but not because of its zeros (this runtime has no sparse kernel for it)"
        pays = False
    elif pays:
        outcome = f"{cause} {saves} time"
    elif high < 1:
        outcome = f"slower than {speedup.baseline}"
    elif smaller:
        outcome = f"{cause} {saves} space, not time"
    else:
        outcome = f"no gain from {cause}"
    text = (
        f"{row.variant} ({placement_label(row, results)}): {ratio_text(low)}-{ratio_text(high)}x "
        f"speed{smaller} vs {speedup.baseline}: {outcome}"
    )
    return Verdict(text, pays)


def placement_label(row: Row, results: Results) -> str:
    """Name a row's runtime, with threads and device where they tell blocks apart."""
    runtime = row.runtime.name + (f", {row.threads} threads" if row.threads > 1 else "")
    return f"{row.device}, {runtime}" if len(results.devices) > 1 else runtime


def _cause(row: Row, dense: Row | None) -> str:
    """Name what distinguishes a variant from its dense counterpart and can save time: of the steps
    that only the variant has, those that have a way to."""
    steps = set(row.steps[len(dense.steps) if dense is not None else 0 :])
    causes = ["channel pruning"] if "channels" in steps else []
    if row.half_precision is not None:  # Its zeros are stored dense and have no effect.
        return " and ".join([*causes, "half precision"])
    unstructured = steps - {"activations", "channels", "weight-sharing", "inputs"}
    if unstructured and (row.zeros_exploited or not causes):
        causes.append("sparsity")
    if not causes and "activations" in steps:
        return "activation sparsity"
    if not causes and "inputs" in steps:
        return "input pruning"
    return " and ".join(causes) or ("weight sharing" if steps else "sparsity")


def recommendations(results: Results) -> Iterator[str]:
    """Name each device's best variant, where there are several devices; and the fastest and the
    smallest variant of those that lose at most a point of the metric."""
    for device in results.devices:
        rows = [row for row in results.rows if row.device == device.name]
        if len(results.devices) > 1:
            best = best_row(rows, results.gates)
            text = _row_text(best) if best else "no variant ran and met its gates"
            yield f"best on {device.name}: {text}"
        choice = recommend(rows) if len(rows) > 1 else None
        if choice is not None:
            same = choice.fastest is choice.smallest
            text = f"fastest {'and smallest ' * same}{_row_text(choice.fastest)}"
            text += "" if same else f"; smallest {_row_text(choice.smallest)}"
            reason = incomparable_formats(rows, device.cpu)
            text += f" ({reason})" if reason else ""
            yield f"recommended on {device.name} (drop at most 1 point): {text}"


def _row_text(row: Row) -> str:
    unit = "ms (simulated)" if row.clock == "instructions" else "ms"
    size = f", {size_text(row.model.bytes)}" if row.model else ""
    p50 = ms_text(row.latency_ms.p50) if row.latency_ms else DASH
    return f"{row.variant} with {row.runtime.name}, p50 {p50} {unit}{size}"


def seed_lines(results: Results) -> Iterator[str]:
    """Give the mean of the metric, with its interval, over variants that differ only in their seed;
    and the difference of each such group to the block's first group."""
    for block in blocks(results):
        groups: dict[str, list[Row]] = {}
        for row in block.rows:
            if row.seed_group is not None and row.status == "ok" and row.score is not None:
                groups.setdefault(row.seed_group, []).append(row)
        groups = {name: rows for name, rows in groups.items() if len(_values(rows)) > 1}
        first = next(iter(groups), None)
        for name, rows in groups.items():
            score, values = rows[0].score, _values(rows)
            assert score is not None
            is_share = score.unit == "%"
            line = (
                f"{', '.join(row.variant for row in rows)} "
                f"({placement_label(block.rows[0], results)}): {score.name} "
                f"{_number(statistics.mean(values), is_share)} "
                f"±{_number(_half_interval(values), is_share)} over {len(values)} seeds"
            )
            if name != first and first is not None:
                difference, half = _difference(values, _values(groups[first]))
                line += f", {_number(difference, is_share, '+')} ±{_number(half, is_share)}"
                line += f" vs {first}"
            yield line


def _values(rows: Sequence[Row]) -> list[float]:
    values = [row.score.shown for row in rows if row.score is not None]
    return [value for value in values if value is not None]


def _number(value: float, is_share: bool, sign: str = "") -> str:
    return f"{value * 100:{sign}.1f}" if is_share else f"{value:{sign}.3g}"


def _half_interval(values: Sequence[float]) -> float:
    """Half the interval of a mean (Student's t)."""
    return _t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def _difference(values: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """Difference of two means and half its interval (Welch 1947)."""
    parts = [statistics.variance(v) / len(v) for v in (values, reference)]
    difference = statistics.mean(values) - statistics.mean(reference)
    if not sum(parts):
        return difference, 0.0
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(v) - 1) for part, v in zip(parts, (values, reference), strict=True)
    )
    return difference, _t(freedom) * math.sqrt(sum(parts))


def _t(freedom: float) -> float:
    from scipy.stats import t  # Loaded where needed: it takes half a second.

    return float(t.ppf((1 + CONFIDENCE) / 2, freedom))
