"""Zeros by a penalty: weights, or groups of them, shrink by a little after each training step, and
what reaches zero stays there unless its gradient pulls it back.

These are proximal steps, so that zeros are exact: soft thresholding for single weights (ISTA; Beck
and Teboulle 2009, SIAM J. Imaging Sciences 2(1)), block soft thresholding for groups (group lasso;
Yuan and Lin 2006, J. Royal Statistical Society B 68(1)). What is asked for is a penalty on all of
them; or a share of zeros: then only the smallest shrink, as many as are to be zero by then (trimmed
L1; Yun et al. 2019, arXiv 1905.08163), along the schedule of Zhu and Gupta (2017). In the last part
of the training zeros stay and nothing shrinks: the other weights get their size back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset
from edgesparse.layers.sparse_dense import SparseDense
from edgesparse.methods import channels as removing
from edgesparse.methods.network.dependencies import check_shrunk, trace
from edgesparse.methods.network.groups import Atoms, Blocks, Groups, Inputs, Singles
from edgesparse.methods.network.inputs import readers
from edgesparse.methods.network.kernels import Kernel, choose, kernels, unfreeze
from edgesparse.methods.report import (
    LayerSparsity,
    Sparsified,
    coverage,
    measure,
    require_covered,
)
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import compared, fit, steps_per_epoch
from edgesparse.models.files.equivalence import require_equal
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import BLOCK, L1, REPORTED_GAP, Channels, Pattern
from edgesparse.spec.trained_methods import MAX_KERNEL_SPARSITY

MOST = MAX_KERNEL_SPARSITY["l1"]
_STEER = 1.05
"""How fast the penalty follows what is asked for, by step."""
_AHEAD = 0.1
_LOOKS = 100
"""How often it is looked which are the smallest."""


def l1(
    model: tf.keras.Model, dataset: Dataset, train: Train, spec: L1, progress: Progress
) -> Sparsified:
    """Train `model` with the penalty; its channels are removed with `group: channel`.

    Raises:
        UsageError: a glob matches nothing, or there is nothing to shrink.
        EdgesparseError: less than half was reached of what was asked for.
    """
    if spec.group == "channel":
        return _channels(model, dataset, train, spec, progress)
    chosen, left = choose(model, spec.exclude)
    if spec.group == "input":
        reading = readers(model)
        chosen = {name: kernel for name, kernel in chosen.items() if kernel.layer in reading}
        if not chosen:
            raise UsageError("group input: no layer with a kernel reads an input of the model")
    notes = unfreeze(model, chosen.values())
    groups, patterns = _groups(chosen, spec)
    total = sum(kernel.size for kernel in chosen.values())
    everything = total + sum(size for size, _ in left.values())
    goal = spec.sparsity
    if goal is not None and spec.group != "input":
        # Asked for are zeros over all weights: what stays dense is made up for by the others.
        goal = min(MOST, goal * everything / total)
    steps = steps_per_epoch(dataset, train.batch_size) * train.epochs
    shrinking = Shrink(groups, spec.penalty, goal, round(spec.end * steps), train)
    first = min(train.epochs - 1, math.ceil(spec.end * train.epochs))
    history = fit(model, dataset, train, progress, callbacks=[shrinking], best_from_epoch=first)
    shrinking.hold()
    if spec.group == "input":
        gone = sum(int(np.sum(one.sizes() == 0)) for one in groups)
        count = sum(one.count for one in groups)
        notes += (f"{gone:,} of {count:,} inputs reach the network no more ({gone / count:.1%})",)
        smaller = _compact(model)
        require_equal("removing inputs", model, smaller, compared(model, dataset))
        # Rows that left with their inputs are zeros no more.
        layers = _measured({name: kernels(smaller)[name] for name in chosen}, patterns, spec)
        return Sparsified(smaller, history, layers, notes, keeps_layers=smaller is model)
    layers = _measured(chosen, patterns, spec)
    done = coverage(model, spec.sparsity or 0.0, {name: why for name, (_, why) in left.items()})
    if spec.sparsity is None:
        notes += (f"penalty {spec.penalty:g}: {done.achieved:.1%} of the weights are zero",)
        return Sparsified(model, history, layers, notes, keeps_layers=True)
    require_covered(done, spec.allow_partial)
    low, high = min(shrinking.penalties), max(shrinking.penalties)
    notes += (f"penalties steered to {low:.3g} to {high:.3g}",)
    return Sparsified(model, history, layers, notes, done, keeps_layers=True)


def _measured(
    found: Mapping[str, Kernel], patterns: Mapping[str, Pattern], spec: L1
) -> tuple[LayerSparsity, ...]:
    return tuple(measure(k, patterns[name], spec.sparsity or 0.0) for name, k in found.items())


def _compact(model: tf.keras.Model) -> tf.keras.Model:
    """With smaller tables where layers read rows of the inputs that there are."""
    found: dict[str, list[np.ndarray]] = {}

    def smaller(layer: Any) -> Any:
        if not isinstance(layer, SparseDense):
            return type(layer).from_config(layer.get_config())
        compact, found[layer.name] = layer.compact()
        return compact

    if not any(isinstance(layer, SparseDense) for layer in model.layers):
        return model
    clone = tf.keras.models.clone_model(model, clone_function=smaller)
    for old, new in zip(model.layers, clone.layers, strict=True):
        new.set_weights(found.get(old.name) or old.get_weights())
    return clone


def _groups(chosen: Mapping[str, Kernel], spec: L1) -> tuple[list[Groups], dict[str, Pattern]]:
    """What shrinks together in each kernel, and the pattern that it leaves."""
    groups: list[Groups] = []
    patterns: dict[str, Pattern] = {}
    for name, kernel in chosen.items():
        pattern: Pattern = "unstructured"
        made: Groups = Singles(kernel.variable)
        if spec.group == "input":
            made = Inputs(kernel.variable)
        elif spec.group in ("block-1x4", "block-1x16"):
            width = BLOCK[spec.group]
            if kernel.is_matrix and kernel.shape[-2] % width == 0:
                made, pattern = Blocks(kernel.variable, width), spec.group
        groups.append(made)
        patterns[name] = pattern
    return groups, patterns


def _channels(
    model: tf.keras.Model, dataset: Dataset, train: Train, spec: L1, progress: Progress
) -> Sparsified:
    """Channels shrink together with all that depend on them; then those that reached zero are
    removed, and what is left is trained on."""
    found = trace(model)
    asked = Channels(
        method="channels",
        ratio=spec.sparsity or 0.0,
        exclude=spec.exclude,
        allow_partial=spec.allow_partial,
    )
    pruning = removing.Pruning(model, found, removing.choose_groups(found, asked, None), asked)
    atoms = Atoms(found, pruning.groups)
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
    smaller = removing.shrink(model, found, kept)
    check_shrunk(model, smaller, found, kept, compared(model, dataset))
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
    notes = [removing.told(found, kept)]
    if spec.sparsity is not None and abs(spec.sparsity - removed) > REPORTED_GAP:
        notes.append(f"{spec.sparsity:.0%} of the channels were asked for, {removed:.0%} are gone")
    return Sparsified(smaller, history, removing.layers_left(pruning, kept), tuple(notes))


class Shrink(tf.keras.callbacks.Callback):
    """A proximal step after each training step, up to step number `end`; then zeros stay.

    Args:
        penalty: in shares of a kernel's root mean square for each unit of learning rate; None: it
            is steered, kernel by kernel, to `goal`, a share of its groups, the smallest.
    """

    def __init__(
        self,
        groups: Sequence[Groups],
        penalty: float | None,
        goal: float | None,
        end: int,
        train: Train,
    ) -> None:
        super().__init__()
        self.groups, self.goal, self.end = tuple(groups), goal, max(1, end)
        self.rate = train.learning_rate
        # At first so that all that is to go would be gone at the end.
        self.penalties = [penalty or 1 / (self.end * self.rate)] * len(self.groups)
        self.limits = [math.inf] * len(self.groups)
        self.every = max(1, self.end // _LOOKS)
        self.number = 0
        self.held = False

    def state(self) -> dict[str, Any]:
        own = {"penalties": self.penalties, "limits": self.limits}
        return {"number": self.number, "held": self.held, **own}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.number, self.held = int(state["number"]), bool(state["held"])
        self.penalties, self.limits = list(state["penalties"]), list(state["limits"])
        if self.held:
            for one in self.groups:
                one.keep(one.sizes() > 0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.number += 1
        if self.held or self.number >= self.end:
            self.hold()
            return
        rate = float(getattr(getattr(self.model, "optimizer", None), "learning_rate", self.rate))
        for place, one in enumerate(self.groups):
            if self.goal is not None and (self.number - 1) % self.every == 0:
                # A little ahead: what is to be zero by then has to shrink before.
                ahead = min(1.0, self.number / self.end + _AHEAD)
                wanted = self.goal * (1 - (1 - ahead) ** 3)
                self.limits[place] = _quantile(one.sizes(), wanted)
            zeros = one.shrink(rate * self.penalties[place], self.limits[place])
            if self.goal is not None:
                wanted = self.goal * (1 - (1 - self.number / self.end) ** 3)
                self.penalties[place] *= _STEER if zeros < wanted else 1 / _STEER

    def hold(self) -> None:
        """Let what is to be zero stay so: the smallest, where a share is asked for, else what is
        zero by now."""
        if not self.held:
            self.held = True
            for one in self.groups:
                sizes = one.sizes()
                kept = sizes > 0
                if self.goal is not None:
                    kept = np.ones(len(sizes), bool)
                    order = np.argsort(sizes, kind="stable")
                    kept[order[: round(min(MOST, self.goal) * len(sizes))]] = False
                one.keep(kept)
        for one in self.groups:
            one.hold()


def _quantile(sizes: np.ndarray, share: float) -> float:
    """The size up to which that share of them is."""
    count = round(share * len(sizes))
    return float(np.partition(sizes, count - 1)[count - 1]) if count else -1.0
