"""Gates: limits that rows must keep."""

from __future__ import annotations

from collections.abc import Iterable

from edgesparse.measure.rows import GateResult, Row, metric_of
from edgesparse.spec.pipeline import Gate


def check_gates(gates: Iterable[Gate], rows: Iterable[Row]) -> list[GateResult]:
    """Every gate against every row of its variant; a row without the value does not pass."""
    found = []
    rows = list(rows)
    for gate in gates:
        for row in rows:
            if row.variant != gate.variant:
                continue
            # A row that failed has no value, and a limit that cannot be checked is not met.
            value = metric_of(row, gate.metric)
            passed = (
                value is not None
                and (gate.min is None or value >= gate.min)
                and (gate.max is None or value <= gate.max)
            )
            found.append(
                GateResult(
                    variant=gate.variant,
                    metric=gate.metric,
                    device=row.device,
                    runtime=row.runtime.name,
                    threads=row.threads,
                    value=value,
                    min=gate.min,
                    max=gate.max,
                    passed=passed,
                    warning=_doubt(gate, row),
                )
            )
    return found


def _doubt(gate: Gate, row: Row) -> str | None:
    """Why a gate on what is lost says little: its interval is wider than what may be lost."""
    score = row.score
    if score is None or gate.metric != f"{score.name}_drop" or score.drop_ci95 is None:
        return None
    half = (score.drop_ci95[1] - score.drop_ci95[0]) / 2
    if gate.max is None or half <= abs(gate.max):
        return None
    return (
        f"its interval of {half:.2g} either way is wider than the gate; more samples would tell "
        "(benchmark.test_samples)"
    )
