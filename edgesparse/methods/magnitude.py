"""Magnitude pruning: the smallest weights or blocks are masked while the model is fine-tuned (Zhu
and Gupta 2017, "To prune, or not to prune", arXiv 1710.01878).

Masks are unstructured, in blocks of outputs x inputs (what TFLite's sparse fully-connected kernels
and the edgesparse delegate read), or 2 of every 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset
from edgesparse.methods.coverage import (
    LayerSparsity,
    Sparsified,
    coverage,
    measure,
    require_covered,
)
from edgesparse.methods.masks import Goal, Masked, PruneGradually, kernel_mask
from edgesparse.methods.network.keep_mask import resolve_distribution
from edgesparse.methods.network.kernels import (
    EXCLUDED,
    Kernel,
    kernels,
    reason_dense,
    unfreeze,
)
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import History, fit, steps_per_epoch
from edgesparse.spec.errors import EdgesparseError, UsageError, did_you_mean
from edgesparse.spec.pipeline import Train
from edgesparse.spec.safe.text import listed
from edgesparse.spec.sparsify import Magnitude, Schedule
from edgesparse.spec.step import Pattern, block_shape, matches


@dataclass(frozen=True)
class LayerTarget:
    """Target of a layer. `note` is the reason why a pattern was not used; `joint`: its sparsity is
    that of all joint layers together."""

    name: str
    sparsity: float
    pattern: Pattern
    note: str = ""
    joint: bool = False


def magnitude(
    model: tf.keras.Model, dataset: Dataset, train: Train, spec: Magnitude, progress: Progress
) -> Sparsified:
    """Prune and fine-tune `model` in place.

    Args:
        model: a flat functional model.
        dataset: data of the fine-tuning.
        train: settings of the fine-tuning, with the epochs, learning rate and batch size of `spec`.
        spec: the step, without `auto`.
        progress: callback.

    Raises:
        UsageError: a layer glob matches nothing, or nothing is left to prune.
        EdgesparseError: the final sparsity was not reached.
    """
    targets = choose_targets(model, spec)
    every = kernels(model)
    notes = unfreeze(model, [every[target.name] for target in targets])
    total = steps_per_epoch(dataset, train.batch_size) * train.epochs
    steps = begin, end, _ = schedule_steps(spec.schedule, total)
    constant = spec.schedule.name == "constant"
    pruning = PruneGradually(
        [Masked(every[target.name], target.pattern) for target in targets],
        [Goal(target.sparsity, target.joint) for target in targets],
        resolve_distribution(
            spec.distribution, ((every[t.name].shape, t.pattern) for t in targets)
        ),
        steps,
        constant=constant,
    )
    history: History = {}
    if train.epochs:
        # Best among epochs at the final sparsity only: denser ones are always better.
        final = begin if constant else end
        first = min(train.epochs - 1, final * train.epochs // max(1, total))
        history = fit(model, dataset, train, progress, callbacks=[pruning], best_from_epoch=first)
    if total <= end:  # No training, or a single step.
        pruning.prune()
    pruning.apply()
    layers = tuple(_measure(target, every[target.name]) for target in targets)
    _check_reached(targets, every)
    done = coverage(model, spec.target_sparsity or 0.0, _left_dense(model, spec, targets))
    require_covered(done, spec.allow_partial)
    return Sparsified(model, history, layers, notes, done, keeps_layers=True)


def _left_dense(
    model: tf.keras.Model, spec: Magnitude, targets: Sequence[LayerTarget]
) -> dict[str, str]:
    """Return the reasons of kernels that are left dense, by name."""
    pruned = {target.name for target in targets}
    reasons = {}
    for name, kernel in kernels(model).items():
        if name not in pruned:
            _, pattern = spec.for_kernel(kernel.names)
            why = EXCLUDED if spec.excludes(kernel.names) else reason_dense(kernel, pattern)
            reasons[name] = why or "sparsity 0 in the pipeline"
    return reasons


def schedule_steps(schedule: Schedule, total: int) -> tuple[int, int, int]:
    """Return (begin, end, frequency) in training steps for a fine-tuning of `total` steps.

    Masks are updated only at begin + k * frequency, so the end is moved onto that grid: else the
    final sparsity would never be reached.
    """
    begin = int(schedule.begin * total)
    end = max(begin + 1, int(schedule.end * total))
    # At least one whole update must fit between the end and the last step.
    end = min(end, max(begin + 1, total - 1))
    frequency = max(1, min(int(schedule.frequency * total), end - begin))
    updates = max(1, (end - begin) // frequency)
    return begin, begin + updates * frequency, frequency


def choose_targets(model: tf.keras.Model, spec: Magnitude) -> tuple[LayerTarget, ...]:
    """Return the layers' targets after exclusions and overrides (the last match wins)."""
    # Layers that are left dense by default are pruned where the pipeline names them.
    layers = {
        name: kernel
        for name, kernel in kernels(model).items()
        if not kernel.reason or name in spec.layers
    }
    names = {name for kernel in kernels(model).values() for name in kernel.names}
    for glob in [*spec.exclude, *spec.layers]:
        if not any(fnmatchcase(name, glob) for name in names):
            raise UsageError(
                f"{glob!r} matches no layer that can be pruned{did_you_mean(glob, layers)}"
            )
    targets = []
    for name, kernel in layers.items():
        if spec.excludes(kernel.names):
            continue
        sparsity, pattern = spec.for_kernel(kernel.names)
        assert not isinstance(sparsity, str), "auto is resolved before"
        assert pattern != "auto", "auto is resolved before"
        if reason_dense(kernel, pattern) and not matches(spec.layers, kernel.names):
            continue
        note = misfit(pattern, kernel)
        fitting: Pattern = "unstructured" if note else pattern
        targets.append(LayerTarget(name, sparsity, fitting, note))
    targets = [target for target in targets if target.sparsity > 0]
    pruned = ((layers[t.name].shape, t.pattern) for t in targets)
    if resolve_distribution(spec.distribution, pruned) != "uniform":
        # Single weights of kernels that blocks do not fit would take the zeros of the blocks.
        targets = [
            replace(t, joint=t.sparsity == spec.sparsity and t.pattern != "2:4" and not t.note)
            for t in targets
        ]
    if not targets:
        raise UsageError(f"no layer can be pruned{_because(model)}")
    return tuple(targets)


def _because(model: tf.keras.Model) -> str:
    reasons = [f"{name}: {k.reason}" for name, k in kernels(model).items() if k.reason]
    return f" ({'; '.join(reasons[:4])})" if reasons else ""


def misfit(pattern: Pattern, kernel: Kernel) -> str:
    """Return the reason why `pattern` does not fit a kernel; empty if it does."""
    if pattern == "unstructured":
        return ""
    if not kernel.takes_blocks:
        return (
            f"{pattern} requires a fully connected layer or a convolution without groups; pruned "
            "unstructured"
        )
    width = block_shape(pattern)[1]
    if kernel.size <= width * kernel.shape[-1] and pattern != "2:4":
        # One block for each output, all of which stay.
        return f"{pattern} requires more than {width} inputs; pruned unstructured"
    return ""


def _measure(target: LayerTarget, kernel: Kernel) -> LayerSparsity:
    """Count a layer's zeros. Where layers share a target, the layer's own is what it got."""
    layer = measure(kernel, target.pattern, target.sparsity, target.note)
    return replace(layer, target=layer.achieved) if target.joint else layer


def _check_reached(targets: Sequence[LayerTarget], every: Mapping[str, Kernel]) -> None:
    """Raise EdgesparseError where zeros are missing, beyond blocks that outputs keep."""
    joint = [target for target in targets if target.joint]
    for group in [[t] for t in targets if not t.joint] + [joint] * bool(joint):
        size = sum(every[target.name].size for target in group)
        zeros = sum(int(np.sum(every[target.name].variable.numpy() == 0)) for target in group)
        # 2:4 is 50 %, whatever the target.
        goal = 0.5 if group[0].pattern == "2:4" else group[0].sparsity
        most = sum(
            int(np.sum(~kernel_mask(every[target.name], 1.0, target.pattern))) for target in group
        )
        blocks = sum(math.prod(block_shape(target.pattern)) for target in group)
        if zeros < min(goal * size, most) - max(0.005 * size, 2 * blocks):
            raise EdgesparseError(
                f"layers have {zeros / size:.1%} zeros instead of {goal:.1%}: "
                f"{listed([target.name for target in group], 4)}; set more epochs or an earlier "
                "schedule.end"
            )
