"""Losses of a changed model against the original's outputs, without labels.

Each output is judged by what it is used for, and relative to the best constant answer: a model
whose answer never changes loses 1, whatever the output, one with the original's outputs 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np

from edgesparse.spec.errors import UsageError

Array = np.ndarray[Any, Any]
Kind = Literal["classes", "decisions", "numbers"]

_DECISION = 0.5
_SUM_TOLERANCE = 0.02
"""Sums of int8 probabilities, in steps of 1/256, differ from 1."""
_Z = 1.96
"""Standard errors in half of a 95 % interval."""


@dataclass(frozen=True)
class OutputLoss:
    """The loss of an output: 0 for equal outputs, 1 for the best constant answer."""

    output: str
    kind: Kind
    loss: float
    interval: tuple[float, float]
    """95 %, over samples."""
    text: str
    """The loss in terms of what the output is used for."""
    samples: int = 0
    factor: float = 1.0
    """The loss where every answer is wrong."""
    answers: float = 0.0
    """Independent answers among those of all samples; 0 for numbers."""

    @property
    def described(self) -> str:
        """The loss in words, and as a share with its interval."""
        low, high = self.interval
        return f"{self.text}; error {self.loss:.1%} (95 %: {low:.1%} to {high:.1%})"

    @property
    def least(self) -> float:
        """The upper end of the interval if no answer were wrong: nothing below can be shown."""
        return self.factor * _Z**2 / (self.answers + _Z**2) if self.answers else 0.0

    def samples_for(self, limit: float) -> int:
        """Return about how many samples the interval of this loss, below a limit, needs to end
        there: two digits."""
        if self.answers:  # Wilson's interval for a share ends at `limit`.
            spread = limit * (self.factor - limit) / (limit - self.loss) ** 2
            more = _Z**2 * spread / self.answers
        else:
            more = ((self.interval[1] - self.loss) / (limit - self.loss)) ** 2
        count = math.ceil(more * self.samples)
        unit = 10 ** max(0, len(str(count)) - 2)
        return -(-count // unit) * unit


def judge(before: Mapping[str, Array], after: Mapping[str, Array]) -> list[OutputLoss]:
    """Judge each output [n, ...] of a changed model against the original's.

    Probabilities of classes are judged by their most probable class, other values in [0, 1] by
    the decisions at 0.5, everything else by its squared error relative to its variance.

    Raises:
        UsageError: no output of the original depends on its input.
    """
    every = [_loss_of(name, expected, after[name]) for name, expected in before.items()]
    losses = [loss for loss in every if loss is not None]
    if not losses:
        raise UsageError(
            "the model's outputs are the same for all samples, so that nothing can be judged; add "
            "samples as the model will see them"
        )
    return losses


def worst(losses: Sequence[OutputLoss]) -> OutputLoss:
    """Return the output that loses most."""
    return max(losses, key=lambda loss: loss.loss)


def objection(losses: Sequence[OutputLoss], max_error: float) -> str | None:
    """Return why a changed model is refused; None where it is accepted.

    An output's interval must end within `max_error`, or, since few samples cannot show that,
    nothing of it may be lost.
    """
    refused = [loss for loss in losses if not loss.loss <= 0 and not loss.interval[1] <= max_error]
    if not refused:
        return None
    loss = worst(refused)
    text = f"{loss.output}: {loss.described}"
    if loss.loss >= max_error:
        return f"{text} exceeds --max-error {max_error:.1%}"
    return f"{text} can exceed --max-error {max_error:.1%}; {_needed(loss, max_error)}"


def uncertainty(losses: Sequence[OutputLoss], max_error: float) -> str | None:
    """Return what the samples cannot show of an accepted model; None where they are enough."""
    wide = [loss for loss in losses if loss.interval[1] > max_error > loss.loss]
    return _needed(max(wide, key=lambda loss: loss.least), max_error) if wide else None


def _needed(loss: OutputLoss, max_error: float) -> str:
    count = f"{loss.samples:,} samples that were not used cannot show"
    least = f" less than {loss.least:.1%}" if loss.least > max_error else " that it does not"
    return f"{count}{least}; about {loss.samples_for(max_error):,} would"


def as_json(losses: list[OutputLoss]) -> list[dict[str, Any]]:
    return [asdict(loss) for loss in losses]


def from_json(values: list[dict[str, Any]]) -> list[OutputLoss]:
    return [
        OutputLoss(**{**value, "interval": cast(Any, tuple(value["interval"]))}) for value in values
    ]


def _loss_of(name: str, expected: Array, actual: Array) -> OutputLoss | None:
    """Judge an output; None for one that is constant in the original and still the same."""
    expected, actual = (v.reshape(len(v), -1) if v.ndim < 2 else v for v in (expected, actual))
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return OutputLoss(name, "numbers", 1.0, (1.0, 1.0), "NaN or inf in outputs")
    if expected.dtype.kind in "iub":
        return _classes(name, expected, actual) or _numbers(name, expected, actual)
    if expected.min() >= 0 and expected.max() <= 1 + _SUM_TOLERANCE:
        sums = expected.sum(axis=-1)
        if expected.shape[-1] > 1 and np.all(np.abs(sums - 1) <= _SUM_TOLERANCE):
            chosen = (v.argmax(axis=-1) for v in (expected, actual))
            loss = _classes(name, *chosen)
        else:
            loss = _decisions(name, expected >= _DECISION, actual >= _DECISION)
        if loss is not None:
            return loss
    return _numbers(name, expected, actual)


def _classes(name: str, expected: Array, actual: Array) -> OutputLoss | None:
    """Judge classes [n, ...]; None where the original always answers with the same ones."""
    most = np.zeros(expected.shape[1:], np.int64)  # The count of each position's commonest class.
    for value in np.unique(expected):
        most = np.maximum(most, np.sum(expected == value, axis=0))
    others = expected.size - int(most.sum())
    if not others:
        return None
    changed = expected != actual
    text = f"{changed.sum():,} of {changed.size:,} answers changed"
    return _share(name, "classes", changed, others, text)


def _decisions(name: str, expected: Array, actual: Array) -> OutputLoss | None:
    """Judge decisions [n, ...]; None where the original always decides in the same way."""
    by_position = expected.sum(axis=0)
    positives = int(by_position.sum())
    rarer = int(np.minimum(by_position, len(expected) - by_position).sum())
    if not rarer:
        return None
    missed, new = int(np.sum(expected & ~actual)), int(np.sum(actual & ~expected))
    text = f"{missed:,} of {positives:,} detections missed, {new:,} new"
    return _share(name, "decisions", expected != actual, rarer, text)


def _share(name: str, kind: Kind, wrong: Array, constant: int, text: str) -> OutputLoss:
    """Relate wrong answers [n, ...] to the `constant` number that the best constant answer gets
    wrong.

    The interval is Wilson's (1927), for as many independent answers as the spread of wrong ones
    over samples implies (Kish's design effect, 1965): at least one a sample, at most all.
    """
    share, factor, samples = float(wrong.mean()), wrong.size / constant, len(wrong)
    variance = float(wrong.reshape(samples, -1).mean(axis=1).var())
    answers = share * (1 - share) * samples / variance if variance else samples
    answers = min(max(answers, samples), wrong.size)
    spread = _Z * math.sqrt(share * (1 - share) / answers + _Z**2 / (4 * answers**2))
    middle, scale = share + _Z**2 / (2 * answers), 1 + _Z**2 / answers
    low, high = (max(0.0, factor * (middle + d) / scale) for d in (-spread, spread))
    return OutputLoss(
        name, kind, factor * share, (low, high), text, samples, factor, float(answers)
    )


def _numbers(name: str, expected: Array, actual: Array) -> OutputLoss | None:
    """Judge numbers by their squared error relative to the variance over samples; None where the
    original's do not vary and are kept."""
    flat = expected.reshape(len(expected), -1).astype(np.float64)
    squared = ((actual.reshape(flat.shape) - flat) ** 2).sum(axis=1)
    variance = float(flat.var(axis=0).sum())
    scale = float((flat**2).mean(axis=0).sum())
    if variance <= 1e-12 * scale or variance == 0:
        if squared.mean() <= 1e-4 * scale:
            return None
        return OutputLoss(name, "numbers", 1.0, (1.0, 1.0), "a constant output has changed")
    loss = float(squared.mean()) / variance
    error = _Z * float(squared.std()) / math.sqrt(len(squared)) / variance
    text = f"error {math.sqrt(loss):.1%} of the spread of outputs"
    interval = max(0.0, loss - error), loss + error
    return OutputLoss(name, "numbers", loss, interval, text, len(squared))
