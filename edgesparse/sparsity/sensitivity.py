"""How much accuracy each layer loses when it alone is pruned, and sparsities that follow from it.

The measure is that of Han et al. 2015 (arXiv 1506.02626): one layer at a time, without training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from edgesparse.data import Dataset, arrays
from edgesparse.sparsity.curves import LayerCurve, Proposal, Sensitivity
from edgesparse.sparsity.magnitude import choose_targets
from edgesparse.sparsity.masks import magnitude_mask
from edgesparse.sparsity.network.kernels import prunable
from edgesparse.sparsity.training import Progress
from edgesparse.spec.sparsify import LEVELS, Magnitude
from edgesparse.tasks import classification

BATCH = 128


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
        kernel = layers[target.name].variable
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
    kernels = {curve.name: layers[curve.name].variable.numpy() for curve in found.layers}
    patterns = {curve.name: curve.pattern for curve in found.layers}
    try:
        for candidate in found.candidates(max_drop):
            for name, sparsity in candidate.items():
                mask = magnitude_mask(kernels[name], sparsity, patterns[name])
                layers[name].variable.assign(kernels[name] * mask)
            accuracy = judge.accuracy()
            if found.keeps(accuracy, max_drop):
                return Proposal(candidate, accuracy)
    finally:
        for name, values in kernels.items():
            layers[name].variable.assign(values)
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
            right += classification.right(answers, self.y[start : start + BATCH])
        return right / len(self.x)
