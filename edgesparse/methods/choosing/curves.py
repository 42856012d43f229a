"""Sensitivity as data: accuracy by layer and sparsity, and the proposals that follow from it.

Apart from what measures it, so that reports can read it without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgesparse.spec.sparsify import Pattern

_THRESHOLDS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0)
"""How much of the allowed loss each single layer may cause, tried in this order."""


@dataclass(frozen=True)
class LayerCurve:
    """Validation accuracy with one layer pruned alone, one value for each level."""

    name: str
    pattern: Pattern
    size: int
    accuracy: tuple[float, ...]


@dataclass(frozen=True)
class Sensitivity:
    """`accuracy` is the dense model's on the same validation samples: the metric that counts, with
    its sign turned where less is better, so that what is lost is always a difference downwards.
    """

    accuracy: float
    levels: tuple[float, ...]
    layers: tuple[LayerCurve, ...]
    metric: str = "accuracy"
    unit: str = "%"
    direction: Literal["maximize", "minimize"] = "maximize"

    def value(self, accuracy: float) -> float:
        """The metric itself."""
        return accuracy if self.direction == "maximize" else -accuracy

    def keeps(self, accuracy: float, drop: float) -> bool:
        """Whether an accuracy is no more than `drop` below the dense model's."""
        return accuracy >= self.accuracy - drop - 1e-9

    def proposal(self, allowed_drop: float) -> dict[str, float]:
        """For each layer the highest level before which it loses no more than that; 0 is none."""
        found = {}
        for layer in self.layers:
            found[layer.name] = 0.0
            for level, accuracy in zip(self.levels, layer.accuracy, strict=True):
                if not self.keeps(accuracy, allowed_drop):
                    break
                found[layer.name] = level
        return found

    def candidates(self, max_drop: float) -> list[dict[str, float]]:
        """Different proposals, the sparsest first.

        Layers that lose nothing alone may lose something together, so that the most careful
        proposals are the one for no loss at all with a lower and lower top.
        """
        proposals = [self.proposal(factor * max_drop) for factor in _THRESHOLDS]
        careful = proposals[-1]
        proposals += [
            {name: min(sparsity, top) for name, sparsity in careful.items()}
            for top in reversed(self.levels[:-1])
        ]
        found: list[dict[str, float]] = []
        for proposal in proposals:
            if any(proposal.values()) and proposal not in found:
                found.append(proposal)
        return sorted(found, key=self.zeros, reverse=True)

    def zeros(self, sparsities: Mapping[str, float]) -> float:
        """Weights that a proposal makes zero."""
        return sum(sparsities[layer.name] * layer.size for layer in self.layers)


@dataclass(frozen=True)
class Proposal:
    """Sparsities by layer, and the validation accuracy with all of them at once, untrained."""

    sparsities: Mapping[str, float]
    accuracy: float
