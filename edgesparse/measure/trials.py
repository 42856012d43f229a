"""A search as data: its trials, and those that no other one beats."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from edgesparse.measure.rows import Data, Direction, Row, metric_of
from edgesparse.spec.auto_variants import Constraint

_HIGHER = {"agreement", "sparsity", "speedup"}
_LOWER = {"bytes", "p50_ms", "p90_ms", "p99_ms", "peak_rss_bytes"}


class Trial(Data):
    """One variant that was tried. `number` is None for those that the pipeline names itself."""

    name: str
    number: int | None = None
    chosen: dict[str, Any] = Field({})
    """By its place in the variant, what was chosen there."""
    variant: dict[str, Any] = Field({})
    """As a pipeline file has it."""
    status: Literal["ok", "failed", "over"]
    """over: beyond a limit, whether that was seen before it was measured or after."""
    reason: str | None = None
    values: list[float] = Field([])
    """Of the objectives."""
    row: Row | None = None
    """On the runtime that is the fastest of the device's."""


class Sweep(Data):
    """What a search has found on a device."""

    pipeline: str
    device: str
    cpu: str = ""
    objectives: list[str]
    directions: list[Direction]
    limits: list[Constraint]
    trials: list[Trial]
    asked: int
    """So many trials there were to be."""

    @cached_property
    def front(self) -> list[Trial]:
        """Those that keep the limits and that no other one beats in every objective, the pipeline's
        own variants among them; in the order of the last objective."""
        good = [trial for trial in self.trials if trial.status == "ok"]
        kept = [
            one
            for place, one in enumerate(good)
            if not any(
                self._beats(other, one) or (other.values == one.values and number < place)
                for number, other in enumerate(good)
            )
        ]
        return sorted(kept, key=lambda trial: self._signed(trial)[::-1])

    def beaten_by(self, trial: Trial) -> Trial | None:
        """One of the front that is better than a trial."""
        return next((one for one in self.front if self._beats(one, trial)), None)

    def _signed(self, trial: Trial) -> list[float]:
        """Its values, the lower the better."""
        pairs = zip(trial.values, self.directions, strict=True)
        return [-value if direction == "maximize" else value for value, direction in pairs]

    def _beats(self, one: Trial, other: Trial) -> bool:
        first, second = self._signed(one), self._signed(other)
        return first != second and all(a <= b for a, b in zip(first, second, strict=True))


def direction_of(objective: str, rows: Sequence[Row]) -> Direction | None:
    """Which way an objective is good, by rows that have it; None where no row has it."""
    if objective in _LOWER or objective.endswith("_drop"):
        return "minimize"
    if objective in _HIGHER:
        return "maximize"
    scores = [score for row in rows for score in row.metrics]
    return next((score.direction for score in scores if score.name == objective), None)


def over(limit: Constraint, row: Row) -> float:
    """How far a row is beyond a limit; not at all at 0 and below."""
    value = metric_of(row, limit.metric)
    if value is None:
        return 1.0
    below = limit.min - value if limit.min is not None else float("-inf")
    above = value - limit.max if limit.max is not None else float("-inf")
    found = max(below, above)
    return found if found > float("-inf") else 0.0
