"""Sensitivity of layers: the accuracy that is lost when a single layer is pruned, and sparsities
that follow from it.

Measured as in Han et al. 2015 (arXiv 1506.02626): layer by layer, without training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset, arrays
from edgesparse.methods.choosing.curves import LayerCurve, Proposal, Sensitivity
from edgesparse.methods.magnitude import choose_targets
from edgesparse.methods.masks import magnitude_mask
from edgesparse.methods.network.kernels import Kernel, kernels
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import recipe_of
from edgesparse.methods.training.recipe import evaluation_targets, inference, predict
from edgesparse.spec.sparsify import LEVELS, Magnitude
from edgesparse.spec.step import Pattern
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

    The model's weights are the same afterwards.

    Raises:
        UsageError: a glob of `spec` matches nothing.
    """
    levels = tuple(sorted(levels))
    evaluator = _Evaluator(model, dataset)
    whole = evaluator.accuracy()
    targets = choose_targets(model, spec.model_copy(update={"sparsity": levels[-1]}))
    layers = kernels(model)
    curves = []
    for number, target in enumerate(targets):
        kernel, accuracies = layers[target.name], list[float]()
        values = kernel.variable.numpy()
        for level in levels:
            kernel.variable.assign(values * _mask(kernel, values, level, target.pattern))
            accuracies.append(evaluator.accuracy())
            share = (number + len(accuracies) / len(levels)) / len(targets)
            progress(share, f"{target.name} at {level:.0%}: accuracy {accuracies[-1]:.3f}")
        kernel.variable.assign(values)
        curves.append(LayerCurve(target.name, target.pattern, values.size, tuple(accuracies)))
    return Sensitivity(whole, levels, tuple(curves))


def propose(
    model: tf.keras.Model, dataset: Dataset, sensitivity: Sensitivity, max_drop: float
) -> Proposal | None:
    """Return the sparsest proposal that keeps the accuracy without training; None where none does.

    All layers are pruned together for each candidate; the weights are the same afterwards.
    """
    evaluator, layers = _Evaluator(model, dataset), kernels(model)
    before = {curve.name: layers[curve.name].variable.numpy() for curve in sensitivity.layers}
    patterns = {curve.name: curve.pattern for curve in sensitivity.layers}
    try:
        for candidate in sensitivity.candidates(max_drop):
            for name, sparsity in candidate.items():
                mask = _mask(layers[name], before[name], sparsity, patterns[name])
                layers[name].variable.assign(before[name] * mask)
            accuracy = evaluator.accuracy()
            if sensitivity.keeps(accuracy, max_drop):
                return Proposal(candidate, accuracy)
    finally:
        for name, values in before.items():
            layers[name].variable.assign(values)
    return None


def _mask(kernel: Kernel, values: np.ndarray, sparsity: float, pattern: Pattern) -> np.ndarray:
    return kernel.as_kernel(magnitude_mask(kernel.by_output(values), sparsity, pattern))


def validation_accuracy(model: tf.keras.Model, dataset: Dataset) -> float:
    """Return the primary metric on validation data, negated where lower is better."""
    return _Evaluator(model, dataset).accuracy()


class _Evaluator:
    """Evaluates a model on the same validation samples repeatedly; its inference is traced once."""

    def __init__(self, model: tf.keras.Model, dataset: Dataset) -> None:
        self.recipe = recipe_of(model, dataset, Train())
        x, y = arrays(dataset.validation, dataset.validation.count)
        self.x, self.ask = x, inference(model)
        self.y = evaluation_targets(self.recipe, x, y)[self.recipe.primary_output]

    def accuracy(self) -> float:
        """Return the primary metric, negated where lower is better, so that a loss is always a
        difference downwards."""
        outputs = []
        for start in range(0, len(self.y), BATCH):
            part = {name: values[start : start + BATCH] for name, values in self.x.items()}
            outputs.append(predict(self.ask, part, self.recipe)[self.recipe.primary_output])
        value = self.recipe.metric.compute(np.concatenate(outputs), self.y)
        return value if self.recipe.metric.direction == "maximize" else -value
