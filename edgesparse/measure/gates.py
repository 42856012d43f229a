"""Gates: limits on metrics of rows."""

from __future__ import annotations

from collections.abc import Iterable

from edgesparse.measure.rows import GateResult, Row, metric_of
from edgesparse.spec.pipeline import Gate


def check_gates(gates: Iterable[Gate], rows: Iterable[Row]) -> list[GateResult]:
    """Check every gate on every row of its variant; a row without the value does not pass."""
    results = []
    rows = list(rows)
    for gate in gates:
        for row in rows:
            if row.variant != gate.variant:
                continue
            value = metric_of(row, gate.metric)
            passed = (
                value is not None
                and (gate.min is None or value >= gate.min)
                and (gate.max is None or value <= gate.max)
            )
            results.append(
                GateResult(
                    variant=gate.variant,
                    metric=gate.metric,
                    device=row.device,
                    runtime=row.runtime.name,
                    threads=row.threads,
                    delegate=row.delegate,
                    value=value,
                    min=gate.min,
                    max=gate.max,
                    passed=passed,
                    warning=_warning(gate, row),
                )
            )
    return results


def _warning(gate: Gate, row: Row) -> str | None:
    """Warn about a gate on a drop whose interval is wider than its limit."""
    score = row.score
    if score is None or gate.metric != f"{score.name}_drop" or score.drop_ci95 is None:
        return None
    half = (score.drop_ci95[1] - score.drop_ci95[0]) / 2
    if gate.max is None or half <= abs(gate.max):
        return None
    return (
        f"its interval of ±{half:.2g} is wider than the gate; use more samples "
        "(benchmark.test_samples)"
    )
