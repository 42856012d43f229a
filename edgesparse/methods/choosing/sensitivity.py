"""How much accuracy each layer loses when it alone is pruned, and sparsities that follow from it.

The measure is that of Han et al. 2015 (arXiv 1506.02626): one layer at a time, without training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset, arrays
from edgesparse.methods.choosing.curves import LayerCurve, Proposal, Sensitivity
from edgesparse.methods.magnitude import choose_targets
from edgesparse.methods.masks import magnitude_mask
from edgesparse.methods.network.kernels import prunable
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import recipe_of
from edgesparse.methods.training.recipe import answers, asking, judged_targets
from edgesparse.spec.sparsify import LEVELS, Magnitude
from edgesparse.spec.training import Train

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
    """The metric that counts, on validation data; larger is better, see `_Judge.accuracy`."""
    return _Judge(model, dataset).accuracy()


class _Judge:
    """Asks a model the same questions again and again; compiled once."""

    def __init__(self, model: tf.keras.Model, dataset: Dataset) -> None:
        self.recipe = recipe_of(model, dataset, Train())
        x, y = arrays(dataset.validation, dataset.validation.count)
        self.x, self.ask = x, asking(model)
        self.y = judged_targets(self.recipe, x, y)[self.recipe.primary_output]

    def accuracy(self) -> float:
        """The metric that counts; with its sign turned where less is better, so that what is lost
        is always a difference downwards."""
        found = []
        for start in range(0, len(self.y), BATCH):
            part = {name: values[start : start + BATCH] for name, values in self.x.items()}
            found.append(answers(self.ask, part, self.recipe)[self.recipe.primary_output])
        value = self.recipe.metric.compute(np.concatenate(found), self.y)
        return value if self.recipe.metric.direction == "maximize" else -value
