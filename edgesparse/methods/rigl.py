"""Sparse from the first step on, with connections that move (Evci et al. 2020, "Rigging the
lottery", arXiv 1911.11134).

A network is trained with as many weights as it has in the end: from time to time a share of those
that matter least is let go, and as many grow where the loss would fall fastest. It never holds the
dense network, so that a much larger one can be trained in the same budget.
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
from edgesparse.methods.training.fitting import fit, one_batch, steps_per_epoch
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
        EdgesparseError: the rest is so large that less than half of `sparsity` can be reached.
    """
    chosen, left = choose(model, spec.exclude)
    notes = unfreeze(model, chosen.values())
    if spec.from_scratch:
        kept = begin_again(model, train.seed)
        notes += (f"begun with new weights, but for {', '.join(kept[:4])}",) if kept else ()
    total = sum(kernel.size for kernel in chosen.values())
    everything = total + sum(size for size, _ in left.values())
    # Asked for are zeros over all weights: what stays dense is made up for by the others.
    share = min(MAX_KERNEL_SPARSITY[spec.method], spec.sparsity * everything / total)
    densities = (erk if spec.distribution == "erk" else uniform)(chosen, 1 - share)
    random = np.random.default_rng(train.seed)
    moving = [
        _Moving(kernel, densities[name], random, spec.from_scratch)
        for name, kernel in chosen.items()
    ]
    steps = steps_per_epoch(dataset, train.batch_size) * train.epochs
    callback = MoveConnections(moving, spec, steps, one_batch(model, dataset, train))
    history = fit(model, dataset, train, progress, callbacks=[callback])
    for one in moving:
        one.apply()
    layers = tuple(
        measure(kernel, "unstructured", 1 - densities[name]) for name, kernel in chosen.items()
    )
    done = coverage(model, spec.sparsity, {name: why for name, (_, why) in left.items()})
    require_covered(done, spec.allow_partial)
    notes += (f"never more than {callback.most:,} of {everything:,} weights at a time",)
    return Sparsified(model, history, layers, notes, done, keeps_layers=True)


def erk(kernels: Mapping[str, Kernel], density: float) -> dict[str, float]:
    """Erdos-Renyi-Kernel (Mocanu et al. 2018, Evci et al. 2020): a kernel's density is in
    proportion to the sum of its dimensions by their product; none is more than 1."""
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


def begin_again(model: tf.keras.Model, seed: int) -> list[str]:
    """Give every weight a new value from its layer's initializer; names those that have none."""
    kept, random = [], np.random.default_rng(seed)
    for layer in model._flatten_layers(recursive=True, include_self=False):
        own = [*layer._trainable_weights, *layer._non_trainable_weights]
        names = {id(value): name for name, value in vars(layer).items()}
        for weight in own:
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
    """A kernel whose connections move; their number stays."""

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
        """Let a share of the smallest go; as many of the others with the largest gradients grow,
        from zero on. gradient [kernel's shape]."""
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
    """Holds the masks, and lets connections move now and then."""

    def __init__(
        self, moving: Sequence[_Moving], spec: Rigl, steps: int, gradients: Gradients
    ) -> None:
        super().__init__(moving)
        self.moving = tuple(moving)
        self.gradients = gradients
        self.fraction, self.end = spec.drop_fraction, spec.end * steps
        self.every = max(1, round(spec.frequency * steps))
        self.most = sum(one.count for one in moving)

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        super().restore(state)
        for one in self.moving:
            one.kept = one.mask.numpy().ravel() != 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        number = self.number
        super().on_train_batch_begin(batch, logs)
        if number and number % self.every == 0 and number < self.end:
            # Less and less, as a cosine.
            share = self.fraction / 2 * (1 + math.cos(math.pi * number / self.end))
            found = self.gradients([one.variable for one in self.moving])
            for one, gradient in zip(self.moving, found, strict=True):
                one.move(share, gradient)
        self.most = max(self.most, sum(int(one.kept.sum()) for one in self.moving))
