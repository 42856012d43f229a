"""How much accuracy each layer loses when it alone is pruned, and sparsities that follow from it.

The measure is that of Han et al. 2015 (arXiv 1506.02626): one layer at a time, without training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset, arrays
from edgesparse.sparsity.magnitude import choose_targets
from edgesparse.sparsity.masks import magnitude_mask
from edgesparse.sparsity.report import prunable
from edgesparse.sparsity.training import Progress
from edgesparse.spec.sparsify import LEVELS, Magnitude, Pattern

BATCH = 128
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
    """`accuracy` is the dense model's on the same validation samples."""

    accuracy: float
    levels: tuple[float, ...]
    layers: tuple[LayerCurve, ...]

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


def measure(
    model: tf.keras.Model,
    dataset: Dataset,
    spec: Magnitude,
    progress: Progress,
    levels: Sequence[float] = LEVELS,
) -> Sensitivity:
    """Prune each layer alone at each level and measure the accuracy on validation data.

    The model's weights are the same afterwards. Raises UsageError where `spec`'s globs match
    nothing.
    """
    levels = tuple(sorted(levels))
    judge = _Judge(model, dataset)
    whole = judge.accuracy()
    targets = choose_targets(model, spec.model_copy(update={"sparsity": levels[-1]}))
    layers = prunable(model)
    curves = []
    for number, target in enumerate(targets):
        kernel = layers[target.name].kernel
        values = kernel.numpy()
        found = []
        for level in levels:
            kernel.assign(values * magnitude_mask(values, level, target.pattern))
            found.append(judge.accuracy())
            share = (number + len(found) / len(levels)) / len(targets)
            progress(share, f"{target.name} at {level:.0%}: accuracy {found[-1]:.3f}")
        kernel.assign(values)
        curves.append(LayerCurve(target.name, target.pattern, values.size, tuple(found)))
    return Sensitivity(whole, levels, tuple(curves))


def propose(
    model: tf.keras.Model, dataset: Dataset, found: Sensitivity, max_drop: float
) -> Proposal | None:
    """The sparsest proposal that keeps the accuracy without any training; None where none does.

    All layers are pruned at once for each candidate; the weights are the same afterwards.
    """
    judge, layers = _Judge(model, dataset), prunable(model)
    kernels = {curve.name: layers[curve.name].kernel.numpy() for curve in found.layers}
    patterns = {curve.name: curve.pattern for curve in found.layers}
    try:
        for candidate in found.candidates(max_drop):
            for name, sparsity in candidate.items():
                mask = magnitude_mask(kernels[name], sparsity, patterns[name])
                layers[name].kernel.assign(kernels[name] * mask)
            accuracy = judge.accuracy()
            if found.keeps(accuracy, max_drop):
                return Proposal(candidate, accuracy)
    finally:
        for name, values in kernels.items():
            layers[name].kernel.assign(values)
    return None


def validation_accuracy(model: tf.keras.Model, dataset: Dataset) -> float:
    """Share of validation samples classified right."""
    return _Judge(model, dataset).accuracy()


class _Judge:
    """Asks a model the same questions again and again; compiled once."""

    def __init__(self, model: tf.keras.Model, dataset: Dataset) -> None:
        self.x, self.y = arrays(dataset.validation, dataset.validation.count)
        self.answer: Any = tf.function(lambda x: model(x, training=False))

    def accuracy(self) -> float:
        right = 0
        for start in range(0, len(self.x), BATCH):
            answers = self.answer(self.x[start : start + BATCH]).numpy()
            right += int(np.sum(np.argmax(answers, axis=-1) == self.y[start : start + BATCH]))
        return right / len(self.x)
