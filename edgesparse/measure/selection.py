"""Selection of the variant to ship on a device: the one rule behind the table's star, the
recommendation and the release.

Among rows that keep their gates and their metric, those that no other row clearly beats in time,
paired by round; of these, those that no other clearly beats in the metric; then the smallest file.
What is not told apart counts as equal, so that noise does not decide: names and numbers of threads
break what ties remain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from edgesparse.measure.rows import PAYS_FROM, GateResult, Row
from edgesparse.measure.statistics import half_width

MAX_DROP = 0.02
"""Largest drop of a released variant without a gate on the primary metric, for shares."""
MAX_RELATIVE_DROP = 0.05
"""Largest drop of other metrics, relative to the baseline."""

NEGLIGIBLE = 0.001
NEGLIGIBLE_RELATIVE = 0.0025
"""A smaller drop, or difference of drops, is none, however narrow its interval: for shares, and
relative for other metrics: where a model's own outputs are the labels, rounding to half precision
loses 1e-8 of r2 with certainty."""
ONE_POINT = 0.01
ONE_POINT_RELATIVE = 0.025
"""A larger loss than another row's is never called equal: for shares, and relative for other
metrics."""
SLOWDOWN = 1.1
"""A row that is slower than another one by this factor in most rounds is never called equal,
however much single rounds were disturbed."""


@dataclass(frozen=True)
class Selection:
    """The row to ship, and the rows that each part of the rule left.

    Attributes:
        row: the row to ship.
        kept: rows that keep their gates and their metric.
        as_fast: of these, the rows that none is clearly faster than.
        as_good: of these, the rows that none clearly loses less than.
    """

    row: Row
    kept: tuple[Row, ...]
    as_fast: tuple[Row, ...]
    as_good: tuple[Row, ...]


def select(
    rows: Iterable[Row], gates: Sequence[GateResult], variant: str | None = None
) -> Selection | None:
    """Select the row to ship on a device.

    Args:
        rows: of one device, whose clock they share.
        gates: of the run; those on other rows are ignored.
        variant: consider only this variant.

    Returns:
        The selection, or None where no row ran, meets its gates and keeps its metric.
    """
    kept = [row for row in rows if variant in (None, row.variant) and not objections(row, gates)]
    if not kept:
        return None
    as_fast = _unbeaten(kept, clearly_slower)
    as_good = _unbeaten(as_fast, clearly_worse)
    row = min(as_good, key=_size_and_name)
    return Selection(row, tuple(kept), tuple(as_fast), tuple(as_good))


def best_row(
    rows: Iterable[Row], gates: Sequence[GateResult], variant: str | None = None
) -> Row | None:
    """Return the row to ship; see `select`."""
    selection = select(rows, gates, variant)
    return None if selection is None else selection.row


def _unbeaten(rows: Sequence[Row], beaten: Callable[[Row, Row], bool]) -> list[Row]:
    """Rows that no other row beats: which of them has the best number does not matter."""
    return [row for row in rows if not any(beaten(row, other) for other in rows)] or list(rows)


def _size_and_name(row: Row) -> tuple[float, str, str, str, int]:
    size = row.model.bytes if row.model else math.inf
    return (size, row.variant, row.runtime.name, row.delegate, row.threads)


def clearly_slower(row: Row, other: Row) -> bool:
    """Check whether a row is slower than another one of its device: beyond the interval of their
    ratio, paired by round, and by more than two measurements of one file differ; or by a tenth
    in most rounds."""
    mine, theirs = row.latency_ms, other.latency_ms
    if mine is None or theirs is None or row is other:
        return False
    pairs = list(zip(mine.by_round, theirs.by_round, strict=False))
    if row.clock == "instructions" or len(pairs) < 2 or min(map(min, pairs)) <= 0:
        return mine.ci95[0] > theirs.ci95[1] and mine.p50 >= PAYS_FROM * theirs.p50
    # Logarithms, so that twice as fast and half as fast cancel out.
    logs = [math.log(a / b) for a, b in pairs]
    mean = sum(logs) / len(logs)
    if median(logs) >= math.log(SLOWDOWN):
        return True
    if mean < math.log(PAYS_FROM):
        return False
    variance = sum((value - mean) ** 2 for value in logs) / (len(logs) - 1)
    return mean > half_width(len(logs) - 1) * math.sqrt(variance / len(logs))


def clearly_worse(row: Row, other: Row) -> bool:
    """Check whether a row loses more of the metric than another one: beyond their intervals, or by
    more than a point."""
    mine, theirs = row.score, other.score
    if mine is None or theirs is None or mine.drop is None or theirs.drop is None:
        return False
    more = mine.drop - theirs.drop
    low, high = mine.drop_ci95 or (mine.drop,) * 2, theirs.drop_ci95 or (theirs.drop,) * 2
    if more <= _points(row, NEGLIGIBLE, NEGLIGIBLE_RELATIVE):
        return False
    return low[0] > high[1] or more > _points(row, ONE_POINT, ONE_POINT_RELATIVE)


def _points(row: Row, points: float, relative: float) -> float:
    """A drop in the metric's unit: `points` for shares, else a part of the baseline's value."""
    score = row.score
    if score is None or score.unit == "%" or score.drop is None or score.shown is None:
        return points + 1e-9
    return relative * abs(score.shown + score.sign * score.drop) + 1e-9


def objections(row: Row, gates: Sequence[GateResult]) -> list[str]:
    """List why a row cannot be shipped; empty where it can.

    Args:
        gates: of the run; those on other rows are ignored.
    """
    if row.status != "ok":
        return ["failed"]
    if row.latency_ms is None:
        return ["was not measured"]
    about = [gate for gate in gates if _is_about(gate, row)]
    reasons = [f"misses its gate on {gate.metric}" for gate in about if not gate.passed]
    score = row.score
    if score is not None and score.at_chance:
        reasons.append("is at chance level")
    if score is None or score.drop is None or score.shown is None:
        return reasons
    # A gate states how much may be lost.
    if any(gate.metric in (score.name, f"{score.name}_drop") for gate in about):
        return reasons
    factor, unit = (100, "points of") if score.unit == "%" else (1, score.unit)
    limit = _points(row, MAX_DROP, MAX_RELATIVE_DROP)
    low = score.drop_ci95[0] if score.drop_ci95 else 0.0
    text = " ".join(filter(None, (f"loses {factor * score.drop:.2g}", unit, score.name)))
    if score.drop > limit:
        return [*reasons, f"{text} (limit: {factor * limit:.2g})"]
    if low > 0 and score.drop > _points(row, NEGLIGIBLE, NEGLIGIBLE_RELATIVE):
        return [*reasons, f"{text} (95 %: at least {factor * low:.2g})"]
    return reasons


def _is_about(gate: GateResult, row: Row) -> bool:
    same = (gate.variant, gate.device, gate.runtime, gate.threads) == (
        row.variant,
        row.device,
        row.runtime.name,
        row.threads,
    )
    return same and gate.delegate in (None, row.delegate)
