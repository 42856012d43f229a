"""Sensitivity as data: accuracy by layer and sparsity, and the proposals that follow from it.

Separate from its measurement, so that reports can read it without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgesparse.spec.step import Pattern

_THRESHOLDS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0)
"""Multiples of the allowed loss that each single layer can cause, tried in this order."""


@dataclass(frozen=True)
class LayerCurve:
    """Validation accuracy with a single layer pruned, a value for each level."""

    name: str
    pattern: Pattern
    size: int
    accuracy: tuple[float, ...]


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivity of a model's layers.

    `accuracy` is the dense model's primary metric on the same validation samples, negated where
    lower is better, so that a loss is always a difference downwards.
    """

    accuracy: float
    levels: tuple[float, ...]
    layers: tuple[LayerCurve, ...]
    metric: str = "accuracy"
    unit: str = "%"
    direction: Literal["maximize", "minimize"] = "maximize"

    def value(self, accuracy: float) -> float:
        """Return the metric, without the negation."""
        return accuracy if self.direction == "maximize" else -accuracy

    def keeps(self, accuracy: float, drop: float) -> bool:
        """Return True where an accuracy is at most `drop` below the dense model's."""
        return accuracy >= self.accuracy - drop - 1e-9

    def proposal(self, allowed_drop: float) -> dict[str, float]:
        """Return for each layer the highest level up to which it loses at most that; 0 for none."""
        sparsities = {}
        for layer in self.layers:
            sparsities[layer.name] = 0.0
            for level, accuracy in zip(self.levels, layer.accuracy, strict=True):
                if not self.keeps(accuracy, allowed_drop):
                    break
                sparsities[layer.name] = level
        return sparsities

    def candidates(self, max_drop: float) -> list[dict[str, float]]:
        """Return distinct proposals, the sparsest first.

        Layers that lose nothing alone can lose something together, so that the last proposals are
        the one for no loss, capped at lower and lower levels.
        """
        proposals = [self.proposal(factor * max_drop) for factor in _THRESHOLDS]
        careful = proposals[-1]
        proposals += [
            {name: min(sparsity, top) for name, sparsity in careful.items()}
            for top in reversed(self.levels[:-1])
        ]
        different: list[dict[str, float]] = []
        for proposal in proposals:
            if any(proposal.values()) and proposal not in different:
                different.append(proposal)
        return sorted(different, key=self.zeros, reverse=True)

    def zeros(self, sparsities: Mapping[str, float]) -> float:
        """Return the number of zeros of a proposal."""
        return sum(sparsities[layer.name] * layer.size for layer in self.layers)


@dataclass(frozen=True)
class Proposal:
    """Sparsities by layer, and the validation accuracy with all of them, without training."""

    sparsities: Mapping[str, float]
    accuracy: float
