"""RigL: sparse training from the first step, with connections that move (Evci et al. 2020, "Rigging
the lottery", arXiv 1911.11134).

The number of weights is constant: at intervals a share of the smallest is dropped, and as many grow
where the gradient is largest. The dense network never exists, so that a much larger one can be
trained in the same budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset
from edgesparse.methods.masks import HoldMasks, Masked
from edgesparse.methods.network.kernels import Kernel, choose, unfreeze
from edgesparse.methods.report import Sparsified, coverage, measure, require_covered
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import batch_gradients, fit, steps_per_epoch
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Rigl
from edgesparse.spec.trained_methods import MAX_KERNEL_SPARSITY

MIN_WEIGHTS = 1
Gradients = Callable[[Sequence[Any]], list[np.ndarray]]


def rigl(
    model: tf.keras.Model, dataset: Dataset, train: Train, spec: Rigl, progress: Progress
) -> Sparsified:
    """Train `model` with a constant number of weights.

    Raises:
        UsageError: a glob matches nothing, or no kernel is left.
        EdgesparseError: less than half of `sparsity` can be reached.
    """
    chosen, left = choose(model, spec.exclude)
    notes = unfreeze(model, chosen.values())
    if spec.from_scratch:
        kept = reinitialize(model, train.seed)
        notes += (f"started from new weights, except {', '.join(kept[:4])}",) if kept else ()
    total = sum(kernel.size for kernel in chosen.values())
    everything = total + sum(size for size, _ in left.values())
    # The target is over all weights: pruned kernels compensate for dense ones.
    share = min(MAX_KERNEL_SPARSITY[spec.method], spec.sparsity * everything / total)
    densities = (erk if spec.distribution == "erk" else uniform)(chosen, 1 - share)
    random = np.random.default_rng(train.seed)
    moving = [
        _Moving(kernel, densities[name], random, spec.from_scratch)
        for name, kernel in chosen.items()
    ]
    steps = steps_per_epoch(dataset, train.batch_size) * train.epochs
    callback = MoveConnections(moving, spec, steps, batch_gradients(model, dataset, train))
    history = fit(model, dataset, train, progress, callbacks=[callback])
    for connections in moving:
        connections.apply()
    layers = tuple(
        measure(kernel, "unstructured", 1 - densities[name]) for name, kernel in chosen.items()
    )
    done = coverage(model, spec.sparsity, {name: why for name, (_, why) in left.items()})
    require_covered(done, spec.allow_partial)
    notes += (f"never more than {callback.most:,} of {everything:,} weights at a time",)
    return Sparsified(model, history, layers, notes, done, keeps_layers=True)


def erk(kernels: Mapping[str, Kernel], density: float) -> dict[str, float]:
    """Return densities by Erdos-Renyi-Kernel (Mocanu et al. 2018, Evci et al. 2020): in proportion
    to the sum of a kernel's dimensions divided by their product, and at most 1."""
    budget = density * sum(kernel.size for kernel in kernels.values())
    raw = {name: sum(kernel.shape) / kernel.size for name, kernel in kernels.items()}
    dense: set[str] = set()
    while True:
        free = [name for name in kernels if name not in dense]
        rest = budget - sum(kernels[name].size for name in dense)
        if not free or rest <= 0:
            return uniform(kernels, density)
        scale = rest / sum(raw[name] * kernels[name].size for name in free)
        full = [name for name in free if scale * raw[name] > 1]
        if not full:
            return {name: 1.0 if name in dense else scale * raw[name] for name in kernels}
        dense.update(full)


def uniform(kernels: Mapping[str, Kernel], density: float) -> dict[str, float]:
    return dict.fromkeys(kernels, density)


def reinitialize(model: tf.keras.Model, seed: int) -> list[str]:
    """Set every weight from its layer's initializer; return the names of those without one."""
    kept, random = [], np.random.default_rng(seed)
    for layer in model._flatten_layers(recursive=True, include_self=False):
        weights = [*layer._trainable_weights, *layer._non_trainable_weights]
        names = {id(value): name for name, value in vars(layer).items()}
        for weight in weights:
            name = names.get(id(weight), "")
            initializer = getattr(layer, f"{name}_initializer", None)
            if callable(initializer):
                config = initializer.get_config()
                if "seed" in config:  # Else it would give the same values again.
                    config["seed"] = int(random.integers(1 << 31))
                fresh = type(initializer).from_config(config)
                weight.assign(fresh(weight.shape, weight.dtype))
            elif weight.trainable:
                kept.append(weight.name)
    return kept


class _Moving(Masked):
    """A kernel with a constant number of connections, which move."""

    def __init__(
        self, kernel: Kernel, density: float, random: np.random.Generator, from_scratch: bool
    ) -> None:
        super().__init__(kernel.variable)
        self.count = max(MIN_WEIGHTS, round(density * kernel.size))
        order = np.abs(kernel.variable.numpy()).ravel()
        if from_scratch:
            order = random.random(kernel.size)
        kept = np.zeros(kernel.size, bool)
        kept[np.argsort(-order, kind="stable")[: self.count]] = True
        self._hold(kept)

    def _hold(self, kept: np.ndarray) -> None:
        self.kept = kept
        shape = self.variable.shape
        self.mask = tf.constant(kept.reshape(shape), self.variable.dtype)
        self.apply()

    def move(self, share: float, gradient: np.ndarray) -> None:
        """Drop a share of the smallest, and grow as many with the largest gradients, from zero.
        gradient [kernel's shape]."""
        weights = np.abs(self.variable.numpy()).ravel()
        count = min(int(share * self.count), int((~self.kept).sum()))
        if not count:
            return
        active = np.flatnonzero(self.kept)
        gone = active[np.argsort(weights[active], kind="stable")[:count]]
        free = np.flatnonzero(~self.kept)
        size = np.abs(gradient).ravel()
        grown = free[np.argsort(-size[free], kind="stable")[:count]]
        kept = self.kept.copy()
        kept[gone], kept[grown] = False, True
        self._hold(kept)


class MoveConnections(HoldMasks):
    """Applies the masks, and moves connections at intervals."""

    def __init__(
        self, moving: Sequence[_Moving], spec: Rigl, steps: int, gradients: Gradients
    ) -> None:
        super().__init__(moving)
        self.moving = tuple(moving)
        self.gradients = gradients
        self.fraction, self.end = spec.drop_fraction, spec.end * steps
        self.every = max(1, round(spec.frequency * steps))
        self.most = sum(connections.count for connections in moving)

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        super().restore(state)
        for connections in self.moving:
            connections.kept = connections.mask.numpy().ravel() != 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        number = self.number
        super().on_train_batch_begin(batch, logs)
        if number and number % self.every == 0 and number < self.end:
            # Cosine decay of the share.
            share = self.fraction / 2 * (1 + math.cos(math.pi * number / self.end))
            gradients = self.gradients([connections.variable for connections in self.moving])
            for connections, gradient in zip(self.moving, gradients, strict=True):
                connections.move(share, gradient)
        self.most = max(self.most, sum(int(connections.kept.sum()) for connections in self.moving))
