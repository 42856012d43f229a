"""Sparsity by a penalty: weights, or groups of them, shrink after each training step, and those
that reach zero stay there unless their gradient pulls them back.

Proximal steps make exact zeros: soft thresholding for single weights (ISTA; Beck and Teboulle 2009,
SIAM J. Imaging Sciences 2(1)), block soft thresholding for groups (group lasso; Yuan and Lin 2006,
J. Royal Statistical Society B 68(1)). With `penalty` all of them shrink; with `sparsity` only the
smallest, as many as the schedule of Zhu and Gupta (2017) has zeros by then (trimmed L1; Yun et al.
2019, arXiv 1905.08163). In the last part of the training zeros stay and nothing shrinks, so that
the other weights recover their size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset
from edgesparse.layers.sparse_dense import SparseDense
from edgesparse.methods import channels as removing
from edgesparse.methods.coverage import (
    LayerSparsity,
    Sparsified,
    coverage,
    measure,
    require_covered,
)
from edgesparse.methods.magnitude import misfit
from edgesparse.methods.masks import squares
from edgesparse.methods.network.dependencies import check_shrunk, trace
from edgesparse.methods.network.groups import Atoms, Blocks, Groups, Inputs
from edgesparse.methods.network.input_layers import readers
from edgesparse.methods.network.keep_mask import distribute, resolve_distribution
from edgesparse.methods.network.kernels import Kernel, choose, kernels, unfreeze
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import comparison_samples, fit, steps_per_epoch
from edgesparse.models.files.equivalence import require_equal
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import L1, REPORTED_GAP, Channels
from edgesparse.spec.step import BLOCKS, Distribution, Pattern
from edgesparse.spec.trained_methods import MAX_KERNEL_SPARSITY

MOST = MAX_KERNEL_SPARSITY["l1"]
_STEER = 1.05
"""Factor of the penalty per step where zeros are behind or ahead of the schedule: it doubles in 15
steps."""
_AHEAD = 0.1
"""Share of the schedule by which groups start to shrink before they must be zero."""
_LOOKS = 100
"""Number of times that the smallest groups are determined, which takes a sort, in a training."""


def l1(
    model: tf.keras.Model, dataset: Dataset, train: Train, spec: L1, progress: Progress
) -> Sparsified:
    """Train `model` with the penalty; with `group: channel`, channels of zeros are removed.

    Raises:
        UsageError: a glob matches nothing, or there is nothing to shrink.
        EdgesparseError: less than half of the target was achieved.
    """
    if spec.group == "channel":
        return _channels(model, dataset, train, spec, progress)
    chosen, left = choose(model, spec.exclude, spec.pattern)
    if spec.group == "input":
        reading = readers(model)
        chosen = {name: kernel for name, kernel in chosen.items() if kernel.layer in reading}
        if not chosen:
            raise UsageError("group: input: no layer with a kernel reads an input of the model")
    notes = unfreeze(model, chosen.values())
    groups, patterns = _groups(chosen, spec)
    total = sum(kernel.size for kernel in chosen.values())
    everything = total + sum(size for size, _ in left.values())
    goal = spec.sparsity
    if goal is not None and spec.group != "input":
        # The target is over all weights: pruned kernels compensate for dense ones.
        goal = min(MOST, goal * everything / total)
    steps = steps_per_epoch(dataset, train.batch_size) * train.epochs
    share = None
    if goal is not None:
        kind = resolve_distribution(
            spec.distribution, ((k.shape, patterns[n]) for n, k in chosen.items())
        )
        share = _shares(chosen, patterns, goal, kind) if spec.group != "input" else goal
    shrinking = Shrink(groups, spec.penalty, share, round(spec.end * steps), train)
    first = min(train.epochs - 1, math.ceil(spec.end * train.epochs))
    history = fit(model, dataset, train, progress, callbacks=[shrinking], best_from_epoch=first)
    shrinking.hold()
    if spec.group == "input":
        gone = sum(int(np.sum(group.sizes() == 0)) for group in groups)
        count = sum(group.count for group in groups)
        notes += (f"{gone:,} of {count:,} inputs were disconnected ({gone / count:.1%})",)
        smaller = _compact(model)
        require_equal("removing inputs", model, smaller, comparison_samples(model, dataset))
        # Rows removed with their inputs no longer count as zeros.
        layers = _measure({name: kernels(smaller)[name] for name in chosen}, patterns, spec)
        return Sparsified(smaller, history, layers, notes, keeps_layers=smaller is model)
    layers = _measure(chosen, patterns, spec)
    done = coverage(model, spec.sparsity or 0.0, {name: why for name, (_, why) in left.items()})
    if spec.sparsity is None:
        notes += (f"penalty {spec.penalty:g}: {done.achieved:.1%} of the weights are zero",)
        return Sparsified(model, history, layers, notes, keeps_layers=True)
    require_covered(done, spec.allow_partial)
    low, high = min(shrinking.penalties), max(shrinking.penalties)
    notes += (f"penalties steered to {low:.3g} to {high:.3g}",)
    return Sparsified(model, history, layers, notes, done, keeps_layers=True)


def _measure(
    chosen: Mapping[str, Kernel], patterns: Mapping[str, Pattern], spec: L1
) -> tuple[LayerSparsity, ...]:
    return tuple(measure(k, patterns[name], spec.sparsity or 0.0) for name, k in chosen.items())


def _compact(model: tf.keras.Model) -> tf.keras.Model:
    """Return the model with smaller tables in SparseDense layers, without rows of zeros."""
    compacted: dict[str, list[np.ndarray]] = {}

    def smaller(layer: Any) -> Any:
        if not isinstance(layer, SparseDense):
            return type(layer).from_config(layer.get_config())
        compact, compacted[layer.name] = layer.compact()
        return compact

    if not any(isinstance(layer, SparseDense) for layer in model.layers):
        return model
    clone = tf.keras.models.clone_model(model, clone_function=smaller)
    for old, new in zip(model.layers, clone.layers, strict=True):
        new.set_weights(compacted.get(old.name) or old.get_weights())
    return clone


def _groups(chosen: Mapping[str, Kernel], spec: L1) -> tuple[list[Groups], dict[str, Pattern]]:
    """Return the groups of each kernel, and the pattern of zeros by kernel."""
    groups: list[Groups] = []
    patterns: dict[str, Pattern] = {}
    for name, kernel in chosen.items():
        pattern: Pattern = "unstructured"
        if spec.pattern != "unstructured" and not misfit(spec.pattern, kernel):
            pattern = spec.pattern
        groups.append(Inputs(kernel) if spec.group == "input" else Blocks(kernel, pattern))
        patterns[name] = pattern
    return groups, patterns


def _shares(
    chosen: Mapping[str, Kernel],
    patterns: Mapping[str, Pattern],
    goal: float,
    distribution: Distribution,
) -> Callable[[], list[float]]:
    """Return a function that gives the target of each kernel, by its present weights. Single
    weights of kernels that blocks do not fit would take the zeros of the blocks: they keep the
    goal."""
    blocks = any(pattern in BLOCKS for pattern in patterns.values())

    def shares() -> list[float]:
        parts = {
            name: (squares(kernel), patterns[name])
            for name, kernel in chosen.items()
            if not blocks or patterns[name] in BLOCKS
        }
        return list(
            {**dict.fromkeys(chosen, goal), **distribute(parts, goal, distribution)}.values()
        )

    return shares


def _channels(
    model: tf.keras.Model, dataset: Dataset, train: Train, spec: L1, progress: Progress
) -> Sparsified:
    """Shrink channels with all that depend on them, remove those that reached zero, and fine-tune
    the rest."""
    dependencies = trace(model)
    channel_spec = Channels(
        method="channels",
        ratio=spec.sparsity or 0.0,
        exclude=spec.exclude,
        allow_partial=spec.allow_partial,
    )
    pruning = removing.Pruning(
        model, dependencies, removing.choose_groups(dependencies, channel_spec, None), channel_spec
    )
    atoms = Atoms(dependencies, pruning.groups)
    first = max(1, min(train.epochs - 1, round(spec.end * train.epochs)))
    share = first / train.epochs
    steps = steps_per_epoch(dataset, train.batch_size) * first
    shrinking = Shrink([atoms], spec.penalty, spec.sparsity, steps, train)
    history = fit(
        model,
        dataset,
        train.model_copy(update={"epochs": first}),
        lambda done, text: progress(done * share, text),
        callbacks=[shrinking],
        best_from_epoch=first - 1,
    )
    shrinking.hold()
    kept = atoms.kept()
    removed = removing.require_removed(pruning, kept)
    if not removed:
        raise EdgesparseError("no channel became zero; raise the penalty, or train for more epochs")
    smaller = removing.shrink(model, dependencies, kept)
    check_shrunk(model, smaller, dependencies, kept, comparison_samples(model, dataset))
    rest = train.epochs - first
    if rest:
        later = fit(
            smaller,
            dataset,
            train.model_copy(update={"epochs": rest}),
            lambda done, text: progress(share + done * (1 - share), text),
        )
        names = {**history, **later}
        history = {name: [*history.get(name, []), *later.get(name, [])] for name in names}
    notes = [removing.remaining_cost(dependencies, kept)]
    if spec.sparsity is not None and abs(spec.sparsity - removed) > REPORTED_GAP:
        notes.append(f"requested removal of {spec.sparsity:.0%} of channels, reached {removed:.0%}")
    return Sparsified(smaller, history, removing.layer_reports(pruning, kept), tuple(notes))


class Shrink(tf.keras.callbacks.Callback):
    """Takes a proximal step after each training step, up to step number `end`; then keeps zeros.

    Args:
        groups: a kernel's groups of weights, for each kernel.
        penalty: share of a kernel's root mean square for each unit of learning rate; None:
            adjusted, kernel by kernel, so that `goal`, a share of its groups, becomes zero.
        goal: target share of zeros, or a function that gives each kernel's at the time; None with a
            fixed penalty.
        end: number of the step after which nothing shrinks.
        train: settings, for the learning rate.
    """

    def __init__(
        self,
        groups: Sequence[Groups],
        penalty: float | None,
        goal: float | Callable[[], list[float]] | None,
        end: int,
        train: Train,
    ) -> None:
        super().__init__()
        self.groups, self.goal, self.end = tuple(groups), goal, max(1, end)
        self.goals = self._goals()
        self.rate = train.learning_rate
        # Initially as large as would bring a group of average size to zero by the end.
        self.penalties = [penalty or 1 / (self.end * self.rate)] * len(self.groups)
        self.limits = [math.inf] * len(self.groups)
        self.every = max(1, self.end // _LOOKS)
        self.number = 0
        self.held = False

    def state(self) -> dict[str, Any]:
        values = {"penalties": self.penalties, "limits": self.limits, "goals": self.goals}
        return {"number": self.number, "held": self.held, **values}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.number, self.held = int(state["number"]), bool(state["held"])
        self.penalties, self.limits = list(state["penalties"]), list(state["limits"])
        self.goals = list(state["goals"]) if "goals" in state else self._goals()
        if self.held:
            for group in self.groups:
                group.keep(group.sizes() > 0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.number += 1
        if self.held:
            self.hold()
            return
        rate = float(getattr(getattr(self.model, "optimizer", None), "learning_rate", self.rate))
        look = (self.number - 1) % self.every == 0
        if look:
            self.goals = self._goals()
        for index, group in enumerate(self.groups):
            if self.goal is not None and look:
                # Ahead of the schedule: groups have to shrink before they are zero.
                ahead = min(1.0, self.number / self.end + _AHEAD)
                target = self.goals[index] * (1 - (1 - ahead) ** 3)
                self.limits[index] = _quantile(group.sizes(), target)
            zeros = group.shrink(rate * self.penalties[index], self.limits[index])
            if self.goal is not None:
                target = self.goals[index] * (1 - (1 - self.number / self.end) ** 3)
                self.penalties[index] *= _STEER if zeros < target else 1 / _STEER
        # Just after shrinking: the optimizer's step moves zeros.
        if self.number >= self.end:
            self.hold()

    def _goals(self) -> list[float]:
        """Return the target of each kernel."""
        return self.goal() if callable(self.goal) else [self.goal or 0.0] * len(self.groups)

    def hold(self) -> None:
        """Keep zeros from now on: the smallest groups with a goal, else those that are zero."""
        if not self.held:
            self.held = True
            for group, goal in zip(self.groups, self._goals(), strict=True):
                sizes = group.sizes()
                kept = sizes > 0
                if self.goal is not None:
                    kept = np.ones(len(sizes), bool)
                    order = np.argsort(sizes, kind="stable")
                    kept[order[: round(min(MOST, goal) * len(sizes))]] = False
                group.keep(kept)
        for group in self.groups:
            group.hold()


def _quantile(sizes: np.ndarray, share: float) -> float:
    """Return the largest size within that share of the smallest."""
    count = round(share * len(sizes))
    return float(np.partition(sizes, count - 1)[count - 1]) if count else -1.0
