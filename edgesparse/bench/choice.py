"""Which variant is the best on a device: the one to release there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgesparse.bench.rows import GateResult, Row

MAX_DROP = 0.02
"""Of a share, for a variant without a gate on the metric that counts."""
MAX_RELATIVE_DROP = 0.05
"""The same for other numbers, as a share of the baseline's."""


def best_row(
    rows: Iterable[Row], gates: Sequence[GateResult], variant: str | None = None
) -> Row | None:
    """The fastest good row of one device: measured, its gates met, its accuracy kept.

    Args:
        rows: of one device, whose clock they share.
        variant: consider this one only.
    """
    # Speed decides only among what may be released at all.
    good = [
        row
        for row in rows
        if row.status == "ok"
        and row.latency_ms is not None
        and variant in (None, row.variant)
        and _acceptable(row, [g for g in gates if _is_about(g, row)])
    ]
    return min(good, key=lambda row: row.latency_ms.p50 if row.latency_ms else 0.0, default=None)


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
    if score is None or score.drop is None or score.shown is None:
        return True
    if any(gate.metric in (score.name, f"{score.name}_drop") for gate in gates):
        return True
    if score.unit == "%":
        return score.drop <= MAX_DROP
    sign = 1 if score.best == "highest" else -1
    return score.drop <= MAX_RELATIVE_DROP * abs(score.shown + sign * score.drop)
