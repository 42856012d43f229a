"""Which variant is the best on a device: the one to release there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgesparse.bench.rows import GateResult, Row

MAX_ACCURACY_DROP = 0.02
"""For a variant without a gate on its accuracy."""


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
    if any(gate.metric in ("accuracy", "accuracy_drop") for gate in gates):
        return True
    drop = row.accuracy.drop if row.accuracy else None
    return drop is None or drop <= MAX_ACCURACY_DROP
