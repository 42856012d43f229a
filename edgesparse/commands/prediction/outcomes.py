"""Predictions made before training, and which of them the measurement confirmed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgesparse.measure.rows import PAYS_FROM, Row

Topic = Literal["task", "note", "gain", "coverage", "speed", "failure"]
Severity = Literal["info", "warning", "error"]
_SEVERITY: dict[Topic, Severity] = {
    "task": "info",
    "note": "info",
    "gain": "info",
    "coverage": "warning",
    "speed": "warning",
    "failure": "error",
}


@dataclass(frozen=True)
class Prediction:
    """A prediction about variants of a plan.

    Args:
        topic: task: what was detected or chosen, for `plan` only; gain: how much time zeros
            save; coverage: less sparsity than requested; speed: no speed-up from zeros; failure:
            the variant will fail.
        template: the message, in which "{variants}" stands for their names.
        variants: the variants it applies to.
        runtimes: the runtimes it applies to; none for all of them.
        prefix: text before the message, such as a device's name.
        time: of the variant on the runtime, in a unit that is the same for all variants there.
        delegate: which delegate that is with.
    """

    topic: Topic
    template: str
    variants: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    prefix: str = ""
    time: float | None = None
    delegate: str = ""

    @property
    def message(self) -> str:
        """The message with the variants' names; empty for a time only."""
        if not self.template:
            return ""
        return self.prefix + self.template.replace("{variants}", ", ".join(self.variants))

    @property
    def severity(self) -> Severity:
        """info, warning or error, by topic."""
        return _SEVERITY[self.topic]

    @property
    def record(self) -> dict[str, Any]:
        """A JSON record."""
        return {
            "severity": self.severity,
            "topic": self.topic,
            "message": self.message,
            "variants": list(self.variants),
            "runtimes": list(self.runtimes),
            **({} if self.time is None else {"time": self.time, "delegate": self.delegate}),
        }

    def without(self, variants: Iterable[str]) -> Prediction | None:
        """Leave out variants; None where none of its variants remain."""
        rest = tuple(name for name in self.variants if name not in variants)
        return replace(self, variants=rest) if rest or not self.variants else None


def confirmed(predictions: Iterable[Prediction], rows: Sequence[Row]) -> list[str]:
    """Select the messages to repeat below the measured rows.

    Notes are repeated, and missing speed-ups that the rows do not disprove. Failures and missing
    coverage are not: the rows themselves have them.
    """
    messages = []
    for prediction in predictions:
        if prediction.topic == "note":
            messages.append(prediction.message)
        elif prediction.topic == "speed":
            disproved = [v for v in prediction.variants if _is_disproved(prediction, v, rows)]
            rest = prediction.without(disproved)
            messages += [rest.message] if rest is not None else []
    return messages


def _is_disproved(prediction: Prediction, variant: str, rows: Sequence[Row]) -> bool:
    """Check whether a variant was faster after all, or has no row that could show it."""
    own_rows = [r for r in rows if r.variant == variant and r.runtime.name in prediction.runtimes]
    measured = [row for row in own_rows if row.status == "ok"]
    # Where channels were removed too, they explain a gain, unless the runtime skips the zeros.
    relevant = [r for r in measured if "channels" not in r.steps or r.zeros_exploited]
    gains = [row.speedup_vs_dense for row in relevant if row.speedup_vs_dense is not None]
    # Only a clear gain disproves it: a busy machine makes small ones.
    faster = any(gain.ci95[0] >= PAYS_FROM for gain in gains)
    return faster or (bool(own_rows) and not measured)


def with_predictions(rows: Sequence[Row], predictions: Iterable[Prediction]) -> list[Row]:
    """Add to rows of a device the speed-ups that were predicted, for the delegate that ran them."""
    times = {
        (variant, runtime, p.delegate == "edgesparse"): p.time
        for p in predictions
        if p.time is not None
        for variant in p.variants
        for runtime in p.runtimes
    }
    delegates = {
        (row.variant, row.runtime.name, row.threads): row.delegate == "edgesparse" for row in rows
    }

    def time_of(row: Row, variant: str) -> float | None:
        delegate = delegates.get((variant, row.runtime.name, row.threads), False)
        return times.get((variant, row.runtime.name, delegate))

    completed = []
    for row in rows:
        if row.speedup_vs_dense is not None:
            time, dense = time_of(row, row.variant), time_of(row, row.speedup_vs_dense.baseline)
            if time and dense:
                row = row.model_copy(update={"predicted_speedup": round(dense / time, 3)})
        completed.append(row)
    return completed
