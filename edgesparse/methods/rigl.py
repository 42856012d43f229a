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
from edgesparse.methods.coverage import Sparsified, coverage, measure, require_covered
from edgesparse.methods.magnitude import misfit
from edgesparse.methods.masks import HoldMasks, Masked, squares
from edgesparse.methods.network.keep_mask import (
    block_scores,
    distribute,
    keep_blocks,
    largest_of_outputs,
    spread_blocks,
)
from edgesparse.methods.network.kernels import Kernel, choose, unfreeze
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import batch_gradients, fit, steps_per_epoch
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Rigl
from edgesparse.spec.step import Pattern
from edgesparse.spec.trained_methods import MAX_KERNEL_SPARSITY

Gradients = Callable[[Sequence[Any]], list[np.ndarray]]


def rigl(
    model: tf.keras.Model, dataset: Dataset, train: Train, spec: Rigl, progress: Progress
) -> Sparsified:
    """Train `model` with a constant number of weights.

    Raises:
        UsageError: a glob matches nothing, or no kernel is left.
        EdgesparseError: less than half of `sparsity` can be reached.
    """
    chosen, left = choose(model, spec.exclude, spec.pattern)
    notes = unfreeze(model, chosen.values())
    if spec.from_scratch:
        kept = reinitialize(model, train.seed)
        notes += (f"started from new weights, except {', '.join(kept[:4])}",) if kept else ()
    total = sum(kernel.size for kernel in chosen.values())
    everything = total + sum(size for size, _ in left.values())
    # The target is over all weights: pruned kernels compensate for dense ones.
    share = min(MAX_KERNEL_SPARSITY[spec.method], spec.sparsity * everything / total)
    notes_by_name = {name: misfit(spec.pattern, kernel) for name, kernel in chosen.items()}
    patterns: dict[str, Pattern] = {
        name: "unstructured" if note else spec.pattern for name, note in notes_by_name.items()
    }
    parts = {name: (squares(kernel), patterns[name]) for name, kernel in chosen.items()}
    sparsities = distribute(parts, share, spec.distribution)
    random = np.random.default_rng(train.seed)
    moving = [
        _Moving(kernel, patterns[name], 1 - sparsities[name], random, spec.from_scratch)
        for name, kernel in chosen.items()
    ]
    steps = steps_per_epoch(dataset, train.batch_size) * train.epochs
    callback = MoveConnections(moving, spec, steps, batch_gradients(model, dataset, train))
    history = fit(model, dataset, train, progress, callbacks=[callback])
    for connections in moving:
        connections.apply()
    layers = tuple(
        measure(kernel, patterns[name], sparsities[name], notes_by_name[name])
        for name, kernel in chosen.items()
    )
    done = coverage(model, spec.sparsity, {name: why for name, (_, why) in left.items()})
    require_covered(done, spec.allow_partial)
    notes += (f"never more than {callback.most:,} of {everything:,} weights at a time",)
    return Sparsified(model, history, layers, notes, done, keeps_layers=True)


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
    """A kernel with a constant number of connections, or blocks of them, which move."""

    def __init__(
        self,
        kernel: Kernel,
        pattern: Pattern,
        density: float,
        random: np.random.Generator,
        from_scratch: bool,
    ) -> None:
        super().__init__(kernel, pattern)
        sums, counts = block_scores(squares(kernel), pattern)
        order = random.random(sums.shape) if from_scratch else sums
        self._hold(keep_blocks(order, counts, 1 - density))

    @property
    def count(self) -> int:
        """The number of weights."""
        return int(np.count_nonzero(self.mask))

    def _hold(self, kept: np.ndarray) -> None:
        self.kept = kept
        shape = squares(self.kernel).shape
        mask = self.kernel.as_kernel(spread_blocks(kept, shape, self.pattern))
        self.mask = tf.constant(mask, self.variable.dtype)
        self.apply()

    def read_mask(self) -> None:
        """Find the blocks of a restored mask."""
        mask = self.kernel.by_output(self.mask.numpy())
        self.kept = block_scores(mask, self.pattern)[0] > 0

    def move(self, share: float, gradient: np.ndarray) -> None:
        """Drop a share of the smallest, and grow as many with the largest gradients, from zero.
        Each output keeps its largest. gradient [kernel's shape]."""
        size, _ = block_scores(squares(self.kernel), self.pattern)
        slope, _ = block_scores(self.kernel.by_output(np.square(gradient)), self.pattern)
        stays = largest_of_outputs(np.where(self.kept, size, -1.0))
        active, free = np.flatnonzero(self.kept & ~stays), np.flatnonzero(~self.kept)
        count = min(int(share * self.kept.sum()), len(active), len(free))
        kept = self.kept.copy()
        kept.ravel()[active[np.argsort(size.ravel()[active], kind="stable")[:count]]] = False
        kept.ravel()[free[np.argsort(-slope.ravel()[free], kind="stable")[:count]]] = True
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
            connections.read_mask()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        number = self.number
        super().on_train_batch_begin(batch, logs)
        if number and number % self.every == 0 and number < self.end:
            # Cosine decay of the share.
            share = self.fraction / 2 * (1 + math.cos(math.pi * number / self.end))
            gradients = self.gradients([connections.variable for connections in self.moving])
            for connections, gradient in zip(self.moving, gradients, strict=True):
                connections.move(share, gradient)
        self.most = max(self.most, sum(connections.count for connections in self.moving))
