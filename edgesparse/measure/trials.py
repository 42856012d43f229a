"""A search as data: its trials and their Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from edgesparse.measure.rows import Data, Direction, Row, metric_of
from edgesparse.spec.search import Constraint

_HIGHER = {"agreement", "sparsity", "speedup"}
_LOWER = {"bytes", "p50_ms", "p90_ms", "p99_ms", "peak_rss_bytes"}


class Trial(Data):
    """One trial: a variant of the search space, or (without `number`) of the pipeline itself."""

    name: str
    number: int | None = None
    chosen: dict[str, Any] = Field({})
    """By path in the variant, the value chosen there (Optuna: params)."""
    variant: dict[str, Any] = Field({})
    """The variant as in a pipeline file."""
    status: Literal["ok", "failed", "infeasible"]
    """infeasible: a constraint is violated, by a prediction or by the measurement."""
    reason: str | None = None
    values: list[float] = Field([])
    """Values of the objectives."""
    row: Row | None = None
    """The row on the fastest runtime of the device."""


class SearchResult(Data):
    """Trials of a search on a device."""

    pipeline: str
    device: str
    cpu: str = ""
    objectives: list[str]
    directions: list[Direction]
    constraints: list[Constraint]
    trials: list[Trial]
    n_trials: int
    """Requested number of trials."""

    @cached_property
    def front(self) -> list[Trial]:
        """Trials that no other dominates (Pareto), the pipeline's variants among them, by the last
        objective."""
        good = [trial for trial in self.trials if trial.status == "ok"]
        front = [
            trial
            for position, trial in enumerate(good)
            if not any(
                self._dominates(other, trial)
                or (other.values == trial.values and number < position)
                for number, other in enumerate(good)
            )
        ]
        return sorted(front, key=lambda trial: self._signed(trial)[::-1])

    def dominated_by(self, trial: Trial) -> Trial | None:
        """Trial of the front that dominates a trial."""
        return next((other for other in self.front if self._dominates(other, trial)), None)

    def _signed(self, trial: Trial) -> list[float]:
        """Values with signs such that lower is better."""
        pairs = zip(trial.values, self.directions, strict=True)
        return [-value if direction == "maximize" else value for value, direction in pairs]

    def _dominates(self, trial: Trial, other: Trial) -> bool:
        first, second = self._signed(trial), self._signed(other)
        return first != second and all(a <= b for a, b in zip(first, second, strict=True))


def direction_of(objective: str, rows: Sequence[Row]) -> Direction | None:
    """Direction of an objective, by rows that have it; None where no row has it."""
    if objective in _LOWER or objective.endswith("_drop"):
        return "minimize"
    if objective in _HIGHER:
        return "maximize"
    scores = [score for row in rows for score in row.metrics]
    return next((score.direction for score in scores if score.name == objective), None)


def violation(constraint: Constraint, row: Row) -> float:
    """Amount by which a row violates a constraint; 0 or less where it does not."""
    value = metric_of(row, constraint.metric)
    if value is None:
        return 1.0
    below = constraint.min - value if constraint.min is not None else float("-inf")
    above = value - constraint.max if constraint.max is not None else float("-inf")
    amount = max(below, above)
    return amount if amount > float("-inf") else 0.0
