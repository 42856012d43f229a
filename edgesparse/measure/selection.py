"""Selection of the best variant on a device: for the release and for the recommendation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgesparse.measure.rows import PAYS_FROM, GateResult, Row

MAX_DROP = 0.02
"""Largest drop of a released variant without a gate on the primary metric, for shares."""
MAX_RELATIVE_DROP = 0.05
"""Largest drop of other metrics, relative to the baseline."""

ONE_POINT = 0.01
RELATIVE = 0.025
"""Largest drop of a recommended variant: for shares, and relative for other metrics."""


def best_row(
    rows: Iterable[Row], gates: Sequence[GateResult], variant: str | None = None
) -> Row | None:
    """Select the row to release on a device, among those measured that meet their gates and keep
    their metric: the smallest file of those not clearly slower than the fastest, so that noise
    between equally fast rows does not decide.

    Args:
        rows: of one device, whose clock they share.
        variant: consider only this variant.
    """
    good = [
        row
        for row in rows
        if row.status == "ok"
        and row.latency_ms is not None
        and variant in (None, row.variant)
        and _acceptable(row, [g for g in gates if _is_about(g, row)])
    ]
    return _smallest_of_the_fastest(good)


def _smallest_of_the_fastest(rows: Sequence[Row]) -> Row | None:
    """Select the smallest file among rows that are not clearly slower than the fastest."""
    fastest = min(rows, key=_p50, default=None)
    if fastest is None:
        return None
    return min((row for row in rows if not clearly_slower(row, fastest)), key=_size)


def _size(row: Row) -> tuple[float, float]:
    return (row.model.bytes if row.model else math.inf, _p50(row))


@dataclass(frozen=True)
class Recommendation:
    """The fastest row and the smallest file of a device, among those that lose at most a point."""

    fastest: Row
    smallest: Row


def recommend(rows: Iterable[Row]) -> Recommendation | None:
    """Recommend rows where no gate limits the drop; None where no row keeps its metric.

    Args:
        rows: of one device.
    """
    kept = [row for row in rows if row.status == "ok" and row.latency_ms and _loses_little(row)]
    fastest = _smallest_of_the_fastest(kept)
    return None if fastest is None else Recommendation(fastest, min(kept, key=_size))


def _loses_little(row: Row) -> bool:
    score = row.score
    if score is None or score.drop is None or score.shown is None or score.at_chance:
        return False
    baseline = score.shown + score.sign * score.drop
    limit = ONE_POINT if score.unit == "%" else RELATIVE * abs(baseline)
    return score.drop <= limit + 1e-9


def _p50(row: Row) -> float:
    assert row.latency_ms is not None
    return row.latency_ms.p50


def clearly_slower(row: Row, other: Row) -> bool:
    """Check whether a row is slower than another one of its device: beyond both intervals, and by
    more than two measurements of one file differ."""
    mine, theirs = row.latency_ms, other.latency_ms
    if mine is None or theirs is None:
        return False
    return mine.ci95[0] > theirs.ci95[1] and mine.p50 >= PAYS_FROM * theirs.p50


def _is_about(gate: GateResult, row: Row) -> bool:
    return (gate.variant, gate.device, gate.runtime, gate.threads) == (
        row.variant,
        row.device,
        row.runtime.name,
        row.threads,
    )


def _acceptable(row: Row, gates: Sequence[GateResult]) -> bool:
    if not all(gate.passed for gate in gates):
        return False
    score = row.score
    if score is not None and score.at_chance:
        return False
    if score is None or score.drop is None or score.shown is None:
        return True
    if any(gate.metric in (score.name, f"{score.name}_drop") for gate in gates):
        return True
    if score.is_significant_loss:  # No gate allows it.
        return False
    if score.unit == "%":
        return score.drop <= MAX_DROP
    return score.drop <= MAX_RELATIVE_DROP * abs(score.shown + score.sign * score.drop)
