"""What trainings that differ in nothing but their seed say together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from edgesparse.measure.results import Results
from edgesparse.measure.rows import Row
from edgesparse.report.table import blocks, place_of

LEVEL = 0.95


def over_seeds(results: Results) -> list[str]:
    """For each group of variants that are alike but for their seed, the mean of the metric that
    counts, with its interval over seeds; and how groups differ from the first of them."""
    lines = []
    for block in blocks(results):
        groups: dict[str, list[Row]] = {}
        for row in block.rows:
            if row.seed_group is not None and row.status == "ok" and row.score is not None:
                groups.setdefault(row.seed_group, []).append(row)
        known = {name: _values(rows) for name, rows in groups.items() if len(rows) > 1}
        first = next(iter(known), None)
        place = place_of(block.rows[0], results)
        for name, values in known.items():
            score = groups[name][0].score
            assert score is not None
            share = score.unit == "%"
            names = ", ".join(row.variant for row in groups[name])
            line = (
                f"{names} ({place}): {score.name} {_text(statistics.mean(values), share)} "
                f"±{_text(_half(values), share)} over {len(values)} seeds"
            )
            if name != first and first is not None:
                more, half = _difference(values, known[first])
                line += f", {_text(more, share, '+')} ±{_text(half, share)} against {first}"
            lines.append(line)
    return lines


def _values(rows: Sequence[Row]) -> list[float]:
    shown = [row.score.shown for row in rows if row.score is not None]
    return [value for value in shown if value is not None]


def _text(value: float, share: bool, sign: str = "") -> str:
    return f"{value * 100:{sign}.1f}" if share else f"{value:{sign}.3g}"


def _half(values: Sequence[float]) -> float:
    """Half of the mean's interval, by Student's t."""
    if len(values) < 2:
        return 0.0
    return _t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def _difference(own: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Of two means, with half of its interval (Welch 1947)."""
    parts = [statistics.variance(v) / len(v) if len(v) > 1 else 0.0 for v in (own, other)]
    more = statistics.mean(own) - statistics.mean(other)
    if not sum(parts):
        return more, 0.0
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(v) - 1) for part, v in zip(parts, (own, other), strict=True) if len(v) > 1
    )
    return more, _t(freedom) * math.sqrt(sum(parts))


def _t(freedom: float) -> float:
    from scipy.stats import t  # With scikit-learn; half a second, for those who need it.

    return float(t.ppf((1 + LEVEL) / 2, freedom))
