"""Magnitude pruning with TensorFlow's model optimization toolkit.

The smallest weights are masked while the model is fine-tuned (Zhu and Gupta 2017, "To prune, or not
to prune", arXiv 1710.01878). Masks are unstructured, in blocks along an output's inputs (what
TFLite's sparse fully-connected kernels read), or 2 of every 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import (
    PruneLowMagnitude,
)

from edgesparse.data import Dataset
from edgesparse.methods.masks import HoldMasks, Masked, block_sizes
from edgesparse.methods.network.kernels import EXCLUDED, Kernel, kernels, unfreeze
from edgesparse.methods.report import (
    LayerSparsity,
    Sparsified,
    coverage,
    measure,
    require_covered,
)
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import History, comparison_samples, fit, steps_per_epoch
from edgesparse.models.files.equivalence import require_equal
from edgesparse.spec.errors import EdgesparseError, UsageError, did_you_mean
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import BLOCK, Magnitude, Pattern, Schedule

MAX_GLOBAL = 0.99
"""Upper bound of a layer's sparsity with `scope: global`: one of zeros would cut the network."""


@dataclass(frozen=True)
class LayerTarget:
    """Target of a layer. `note` is the reason why a pattern was not used."""

    name: str
    sparsity: float
    pattern: Pattern
    note: str = ""
    toolkit: bool = True
    """True where TensorFlow's toolkit applies the mask, False where HoldMasks does."""


def magnitude(
    model: tf.keras.Model, dataset: Dataset, train: Train, spec: Magnitude, progress: Progress
) -> Sparsified:
    """Prune and fine-tune `model`; its layers are reused, so that it must not be used afterwards.

    Args:
        model: a flat functional model.
        dataset: data of the fine-tuning.
        train: settings of the fine-tuning, with the epochs and learning rate of `spec`.
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
    begin, end, frequency = schedule_steps(spec.schedule, total)
    wrapped = _wrap(model, targets, spec.schedule.name, begin, end, frequency)
    samples = comparison_samples(model, dataset)
    require_equal("adding pruning wrappers", model, wrapped, samples)
    # Masks of layers that the toolkit cannot wrap are applied here, on the same schedule.
    others, every = [target for target in targets if not target.toolkit], kernels(wrapped)
    held = [
        Masked(
            every[target.name].variable,
            target.pattern,
            _schedule(target, spec.schedule.name, begin, end, frequency),
        )
        for target in others
    ]
    history: History = {}
    if train.epochs == 0:
        _one_shot(wrapped)
        for masked, target in zip(held, others, strict=True):
            masked.prune(target.sparsity)
    else:
        # Best among epochs at the final sparsity only: denser ones are always better.
        final_step = end if spec.schedule.name == "polynomial" else begin
        history = fit(
            wrapped,
            dataset,
            train,
            progress,
            callbacks=[*_toolkit_callbacks(wrapped), *([HoldMasks(held)] if held else [])],
            best_from_epoch=min(train.epochs - 1, final_step * train.epochs // max(1, total)),
        )
    # Before stripping, which discards the masks.
    _apply_masks(wrapped)
    for masked in held:
        masked.apply()
    stripped = tfmot.sparsity.keras.strip_pruning(wrapped)
    require_equal("stripping pruning wrappers", wrapped, stripped, samples)
    every = kernels(stripped)
    layers = tuple(
        measure(every[target.name], target.pattern, target.sparsity, target.note)
        for target in targets
    )
    _check_reached(layers)
    done = coverage(stripped, spec.target_sparsity or 0.0, _left_dense(stripped, spec, targets))
    require_covered(done, spec.allow_partial)
    return Sparsified(stripped, history, layers, notes, done, keeps_layers=True)


def _left_dense(
    model: tf.keras.Model, spec: Magnitude, targets: Sequence[LayerTarget]
) -> dict[str, str]:
    """Return the reasons of kernels that are left dense, by name."""
    pruned = {target.name for target in targets}
    reasons = {}
    for name, kernel in kernels(model).items():
        if name not in pruned:
            excluded = spec.excludes(kernel.names)
            default = EXCLUDED if excluded else "sparsity 0 in the pipeline"
            reasons[name] = default if not kernel.reason or excluded else kernel.reason
    return reasons


def _toolkit_callbacks(model: tf.keras.Model) -> list[tf.keras.callbacks.Callback]:
    return [tfmot.sparsity.keras.UpdatePruningStep()] if _wrappers(model) else []


def schedule_steps(schedule: Schedule, total: int) -> tuple[int, int, int]:
    """Return (begin, end, frequency) in training steps for a fine-tuning of `total` steps.

    tfmot updates a mask only at begin + k * frequency, so the end is moved onto that grid: else the
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
        note = misfit(pattern, kernel)
        fitting: Pattern = "unstructured" if note else pattern
        targets.append(LayerTarget(name, sparsity, fitting, note, kernel.toolkit))
    targets = [target for target in targets if target.sparsity > 0]
    if spec.scope == "global":
        targets = _globally(targets, layers, spec)
    if not targets:
        raise UsageError(f"no layer can be pruned{_because(model)}")
    return tuple(targets)


def _globally(
    targets: Sequence[LayerTarget], by_name: Mapping[str, Kernel], spec: Magnitude
) -> list[LayerTarget]:
    """Return targets by each layer's share of the smallest weights (or blocks, by their mean) of
    all layers, before pruning. Layers with a sparsity in `layers` keep it."""
    fixed = {t.name for t in targets if spec.for_kernel(by_name[t.name].names)[0] != spec.sparsity}
    sizes = {
        t.name: block_sizes(by_name[t.name].variable.numpy(), t.pattern)
        for t in targets
        if t.name not in fixed
    }
    weights = np.concatenate([np.full(v.size, by_name[n].size / v.size) for n, v in sizes.items()])
    everything = np.concatenate(list(sizes.values()))
    order = np.argsort(everything, kind="stable")
    gone = np.cumsum(weights[order]) <= float(spec.sparsity) * weights.sum()
    limit = everything[order][gone][-1] if gone.any() else -1.0
    return [
        replace(t, sparsity=min(MAX_GLOBAL, float(np.mean(sizes[t.name] <= limit))))
        if t.name in sizes
        else t
        for t in targets
    ]


def _because(model: tf.keras.Model) -> str:
    reasons = [f"{name}: {k.reason}" for name, k in kernels(model).items() if k.reason]
    return f" ({'; '.join(reasons[:4])})" if reasons else ""


def misfit(pattern: Pattern, kernel: Kernel) -> str:
    """Return the reason why `pattern` does not fit a kernel [..., inputs, outputs]; empty if it
    does."""
    shape = kernel.shape
    if pattern == "unstructured":
        return ""
    if not kernel.is_matrix and (pattern != "2:4" or not kernel.toolkit):
        # tfmot lays blocks over matrices only, and TFLite has no block-sparse convolution.
        return f"{pattern} requires a fully connected layer; pruned unstructured"
    if shape[-2] % BLOCK[pattern]:
        return f"{shape[-2]} inputs are not a multiple of {BLOCK[pattern]}; pruned unstructured"
    # tfmot (0.8.1) fails where a mask has one block in a row or column.
    if shape[-1] == 1:
        return f"{pattern} requires more than one output; pruned unstructured"
    if shape[-2] == BLOCK[pattern] and pattern != "2:4":
        return f"{pattern} requires more than {shape[-2]} inputs; pruned unstructured"
    return ""


def _wrap(
    model: tf.keras.Model,
    targets: Sequence[LayerTarget],
    schedule: str,
    begin: int,
    end: int,
    frequency: int,
) -> tf.keras.Model:
    by_name = {target.name: target for target in targets if target.toolkit}

    def wrap(layer: Any) -> Any:
        # A nested model is a layer of its own kind; its layers are pruned like any other.
        if isinstance(layer, tf.keras.Model):
            return tf.keras.models.clone_model(layer, clone_function=wrap)
        target = by_name.get(layer.name)
        if target is None:
            return layer
        pruning = _schedule(target, schedule, begin, end, frequency)
        if target.pattern == "2:4":
            kind = {"sparsity_m_by_n": (2, 4)}
        elif target.pattern == "unstructured":
            kind = {}
        else:
            # A Dense kernel is [inputs, outputs], TFLite's is [outputs, inputs]: 1xN there is Nx1.
            kind = {"block_size": (BLOCK[target.pattern], 1)}
        return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning, **kind)

    return tf.keras.models.clone_model(model, clone_function=wrap)


def _schedule(target: LayerTarget, name: str, begin: int, end: int, frequency: int) -> Any:
    """Return the toolkit's schedule of a layer's sparsity."""
    schedules = tfmot.sparsity.keras
    if name == "polynomial":
        return schedules.PolynomialDecay(0.0, target.sparsity, begin, end, frequency=frequency)
    return schedules.ConstantSparsity(target.sparsity, begin, frequency=frequency)


def _wrappers(model: tf.keras.Model) -> list[Any]:
    wrappers = []
    for layer in model.layers:
        if isinstance(layer, PruneLowMagnitude):
            wrappers.append(layer)
        elif isinstance(layer, tf.keras.Model):
            wrappers += _wrappers(layer)
    return wrappers


def _one_shot(model: tf.keras.Model) -> None:
    for wrapper in _wrappers(model):
        kernel, mask, threshold = wrapper.pruning_vars[0]
        schedule = wrapper.pruning_schedule
        # Without training there is no step at which the schedule would update the mask.
        full = tfmot.sparsity.keras.ConstantSparsity(_final_sparsity(schedule), 0, frequency=1)
        wrapper.pruning_obj._pruning_schedule = full
        wrapper.pruning_step.assign(0)
        new_threshold, new_mask = wrapper.pruning_obj._maybe_update_block_mask(kernel)
        threshold.assign(new_threshold)
        mask.assign(new_mask)


def _final_sparsity(schedule: Any) -> float:
    config = schedule.get_config()["config"]
    return float(config.get("final_sparsity", config.get("target_sparsity")))


def _apply_masks(model: tf.keras.Model) -> None:
    """Apply the masks once more: the optimizer's last step moved masked weights."""
    for wrapper in _wrappers(model):
        for kernel, mask, _ in wrapper.pruning_vars:
            kernel.assign(kernel * mask)


def _check_reached(layers: Sequence[LayerSparsity]) -> None:
    for layer in layers:
        # 2:4 is 50 %, whatever the target.
        target = 0.5 if layer.pattern == "2:4" else layer.target
        block = BLOCK.get(layer.pattern, 1)
        if layer.achieved < target - max(0.005, 2 * block / layer.size):
            raise EdgesparseError(
                f"layer {layer.name} has {layer.achieved:.1%} zeros instead of {target:.1%}; "
                "set more epochs or an earlier schedule.end"
            )
