"""Channel pruning: a really smaller model, for any functional Keras model.

Channels whose weights matter least are taken out of all layers that share them (Li et al. 2016,
arXiv 1608.08710; for the scale of batch normalizations Liu et al. 2017, arXiv 1708.06519), then
what is left is fine-tuned. No zeros are left behind: every runtime is faster, with int8 and on an
Edge TPU too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset
from edgesparse.methods.network.cost import cost
from edgesparse.methods.network.dependencies import Dependencies, Group, check_shrunk, trace
from edgesparse.methods.network.layers import LayerChannels, resized
from edgesparse.methods.report import LayerSparsity, Sparsified
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import compared, fit
from edgesparse.spec.errors import EdgesparseError, UsageError, did_you_mean
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import REPORTED_GAP, Channels, Importance

Measure = Callable[[Sequence[tf.keras.Model]], list[float]]
"""Gives the latency of models on the target, in ms, measured together."""
# Bisection to far below one channel.
_STEPS = 40
_CANDIDATES = 5


def channels(
    model: tf.keras.Model,
    dataset: Dataset,
    train: Train,
    spec: Channels,
    progress: Progress,
    measure: Measure | None = None,
    only: Collection[str] | None = None,
) -> Sparsified:
    """Remove channels until the budget is met, and fine-tune what is left.

    Args:
        train: settings of the fine-tune (`spec`'s own epochs and learning rate already in it).
        measure: needed for `spec.latency`.
        only: layers that may lose channels; default all.

    Raises:
        UsageError: a layer glob matches nothing, or no layer can lose channels.
        EdgesparseError: the budget cannot be met.
    """
    found = trace(model)
    pruning = Pruning(model, found, choose_groups(found, spec, only), spec)
    # All at once and then fine-tuned: pruning layer by layer costs a training each.
    kept = _within_budget(pruning, spec, measure)
    removed = require_removed(pruning, kept)
    smaller = shrink(model, found, kept)
    check_shrunk(model, smaller, found, kept, compared(model, dataset))
    history = fit(smaller, dataset, train, progress)
    note = told(found, kept)
    if spec.ratio is not None and abs(spec.ratio - removed) > REPORTED_GAP:
        note += f"; {spec.ratio:.0%} of the channels were asked for, {removed:.0%} are gone"
        note += _because(found)
    return Sparsified(smaller, history, layers_left(pruning, kept), (note,))


def told(found: Dependencies, kept: np.ndarray) -> str:
    """What is left of a model's cost, in words."""
    before, after = cost(found, np.ones_like(kept)), cost(found, kept)
    return (
        f"channels removed: {after.macs / max(1, before.macs):.0%} of the multiply-accumulates and "
        f"{after.parameters / max(1, before.parameters):.0%} of the weights are left"
    )


def require_removed(pruning: Pruning, kept: np.ndarray) -> float:
    """The share of the removable channels that is gone. EdgesparseError where less than half is of
    what was asked for, and nobody said that this is all right."""
    atoms = np.concatenate([group.atoms for group in pruning.groups])
    removed = float(np.mean(~kept[atoms]))
    spec = pruning.spec
    if spec.ratio and removed < spec.ratio / 2 and not spec.allow_partial:
        rounding = f"widths stay multiples of {spec.round_to}, and " if spec.round_to else ""
        raise EdgesparseError(
            f"{spec.ratio:.0%} of the channels were asked for, and {removed:.0%} can go: {rounding}"
            f"no layer loses more than {spec.max_pruning_ratio:.0%}{_because(pruning.found)}; "
            "lower 'round_to', or say 'allow_partial: true' in this step if that is meant"
        )
    return removed


@dataclass(frozen=True)
class Pruning:
    """What can be removed from a model, and how."""

    model: tf.keras.Model
    found: Dependencies
    groups: Sequence[Group]
    spec: Channels

    @cached_property
    def scores(self) -> np.ndarray:
        return importance(self.found, self.spec.importance)

    def kept(self, share: float) -> np.ndarray:
        """Which atoms stay when that share of the channels goes: bool [atoms]."""
        scores = self.scores
        kept = np.ones(len(self.found.fixed), bool)
        ratios = [_own_ratio(group, self.spec) for group in self.groups]
        # A layer with a ratio of its own takes no part in the common limit.
        pooled = [g for g, r in zip(self.groups, ratios, strict=True) if r is None]
        limit = np.inf
        if self.spec.scope == "global" and pooled:
            everything = np.sort(np.concatenate([scores[g.atoms] for g in pooled]))
            count = round(share * len(everything))
            limit = everything[count] if count < len(everything) else np.inf
        for group, ratio in zip(self.groups, ratios, strict=True):
            own = scores[group.atoms]
            if ratio is not None:
                removed = round(ratio * len(own))
            elif self.spec.scope == "global":
                removed = int(np.sum(own < limit))
            else:
                removed = round(share * len(own))
            left = _round(len(own) - removed, len(own), self.spec)
            # Stable, so that equal channels go in their order.
            order = np.argsort(own, kind="stable")
            kept[group.atoms[order[: len(own) - left]]] = False
        return kept


def _round(left: int, width: int, spec: Channels) -> int:
    """A width that is a multiple and not too small; never more than there is."""
    multiple = spec.round_to or _multiple(width)
    least = max(1, int(np.ceil(width * (1 - spec.max_pruning_ratio))))
    # To the nearest multiple, which kernels like; never below what max_pruning_ratio leaves.
    rounded = max((left + multiple // 2) // multiple, -(-least // multiple), 1) * multiple
    return min(width, rounded)


def _multiple(width: int) -> int:
    """What widths are kept to where nobody says: 8, which kernels like, and less in narrow layers,
    which would lose nothing otherwise."""
    return max(m for m in (1, 2, 4, 8) if m == 1 or m <= width // 4)


def _own_ratio(group: Group, spec: Channels) -> float | None:
    """The last override that matches one of its layers."""
    found = None
    for glob, override in spec.layers.items():
        if any(fnmatchcase(layer, glob) for layer in group.layers):
            found = override.ratio
    return found


def _ratios(pruning: Pruning) -> dict[str, float]:
    """What was asked of each layer alone: a budget, or a ratio of all channels, asks of none."""
    common = pruning.spec.ratio if pruning.spec.scope == "layer" else None
    return {
        layer: ratio
        for group in pruning.groups
        if (ratio := _own_ratio(group, pruning.spec) or common) is not None
        for layer in group.layers
    }


def choose_groups(found: Dependencies, spec: Channels, only: Collection[str] | None) -> list[Group]:
    """The channels that may go. UsageError where a glob matches nothing, or there are none."""
    names = [name for name, c in found.layers.items() if c.produces]
    for glob in [*spec.exclude, *spec.layers]:
        if not any(fnmatchcase(name, glob) for name in names):
            raise UsageError(f"{glob!r} matches no layer with channels{did_you_mean(glob, names)}")
    groups = [
        group
        for group in found.groups()
        if not any(fnmatchcase(layer, glob) for layer in group.layers for glob in spec.exclude)
        and (only is None or set(group.layers) <= set(only))
    ]
    if not groups:
        raise UsageError(f"no layer can lose channels{_because(found)}")
    return groups


def foreseen(model: tf.keras.Model) -> tuple[tuple[str, ...], str | None]:
    """The layers that have channels of their own, and why none can lose any, where that is so."""
    found = trace(model)
    widths = tuple(name for name, c in found.layers.items() if c.produces)
    return widths, None if found.groups() else f"no layer can lose channels{_because(found)}"


def _because(found: Dependencies) -> str:
    reasons = "; ".join(f"{layer}: {why}" for layer, why in list(found.reasons.items())[:4])
    return f" ({reasons})" if reasons else ""


def importance(found: Dependencies, kind: Importance) -> np.ndarray:
    """How much each atom matters: float [atoms], 1 for the average channel of its layers."""
    total, count = np.zeros(len(found.fixed)), np.zeros(len(found.fixed))
    if kind == "batch-norm":
        scales = [
            (c.outputs, np.abs(c.layer.gamma.numpy()))
            for c in found.layers.values()
            if isinstance(c.layer, tf.keras.layers.BatchNormalization)
            and c.layer.scale
            and c.rows is None
        ]
        if not scales:
            raise UsageError("importance: batch-norm needs BatchNormalization layers with a scale")
        _add_scores(scales, total, count)
    norms = []
    for c in found.layers.values():
        if c.produces:
            weight, axes = c.layer.get_weights(), c.axes
            place = max(i for i, a in enumerate(axes) if "out" in a.values() and weight[i].ndim > 1)
            (axis,) = [a for a, kind_of in axes[place].items() if kind_of == "out"]
            # One row for each output channel, whatever the layer calls its axes.
            kernel = np.moveaxis(weight[place], axis, 0).reshape(len(c.outputs), -1)
            norm = np.linalg.norm(kernel, 1 if kind == "l1" else 2, axis=1)
            norms.append((c.outputs, norm * _folded(c.normalizer, len(norm))))
            if c.heads is not None:  # By what each gives to the output.
                kernel = weight[place].reshape(len(c.heads), -1)
                norms.append((c.heads, np.linalg.norm(kernel, 1 if kind == "l1" else 2, axis=1)))
    rest, rest_count = np.zeros_like(total), np.zeros_like(count)
    _add_scores(norms, rest, rest_count)
    # Channels without a batch normalization go by their weights, on the same scale.
    missing = count == 0
    total[missing], count[missing] = rest[missing], rest_count[missing]
    return total / np.maximum(count, 1)


def _folded(normalizer: Any, width: int) -> np.ndarray:
    """What a batch normalization multiplies each channel by; without it a norm says little."""
    if normalizer is None:
        return np.ones(width)
    deviation = np.sqrt(normalizer.moving_variance.numpy() + normalizer.epsilon)
    scale = np.abs(normalizer.gamma.numpy()) if normalizer.scale else np.ones(width)
    return scale / deviation


def _add_scores(
    scores: Sequence[tuple[np.ndarray, np.ndarray]], total: np.ndarray, count: np.ndarray
) -> None:
    for atoms, values in scores:
        # Relative to the layer's average: layers of different scale must not be emptied one by one.
        # add.at, since an atom may occur twice.
        np.add.at(total, atoms, values / max(float(values.mean()), 1e-12))
        np.add.at(count, atoms, 1)


def _within_budget(pruning: Pruning, spec: Channels, measure: Measure | None) -> np.ndarray:
    if spec.ratio is not None:
        return pruning.kept(spec.ratio)
    if spec.latency is not None:
        if measure is None:
            raise EdgesparseError("a latency budget needs a device to measure on")
        return _within_latency(pruning, spec.latency, measure)
    name, budget = ("macs", spec.macs) if spec.macs is not None else ("parameters", spec.parameters)
    assert budget is not None
    return _within_cost(pruning, name, budget)


def _within_cost(pruning: Pruning, name: str, budget: float) -> np.ndarray:
    """The most channels with at most `budget` of the model's `name`, by bisection."""
    whole = getattr(cost(pruning.found, np.ones(len(pruning.found.fixed), bool)), name)

    def left(kept: np.ndarray) -> float:
        return float(getattr(cost(pruning.found, kept), name) / max(1, whole))

    low, high, best = 0.0, 1.0, pruning.kept(1.0)
    if left(best) > budget:
        raise EdgesparseError(
            f"{name}: {budget:g} cannot be met: {left(best):.2f} are left when all is removed that "
            f"may be (max_pruning_ratio, exclude, round_to){_because(pruning.found)}"
        )
    for _ in range(_STEPS):
        middle = (low + high) / 2
        kept = pruning.kept(middle)
        if left(kept) <= budget:
            high, best = middle, kept
        else:
            low = middle
    return best


def _within_latency(pruning: Pruning, budget: float, measure: Measure) -> np.ndarray:
    """The most channels within a latency that is measured: some candidates, then some between."""
    low, high = 0.0, 1.0
    best: np.ndarray | None = None
    reached = 1.0
    # Two sweeps of five narrow it down to a twenty-fifth, as five bisections would, in two jobs.
    for _ in range(2):
        shares = np.linspace(low, high, _CANDIDATES + 1)[1:]
        masks = [pruning.kept(share) for share in shares]
        models = [shrink(pruning.model, pruning.found, kept) for kept in masks]
        # Together with the dense one: a ratio within one job, so that drift cancels out.
        dense, *times = measure([pruning.model, *models])
        ratios = [time / dense for time in times]
        reached = min(reached, *ratios)
        met = [i for i, ratio in enumerate(ratios) if ratio <= budget]
        if not met:
            break
        best = masks[met[0]]
        low, high = float(shares[met[0] - 1]) if met[0] else low, float(shares[met[0]])
    if best is None:
        raise EdgesparseError(
            f"latency: {budget:g} cannot be met: with all removed that may be, the target still "
            f"takes {reached:.2f} of the dense model's time"
        )
    return best


def shrink(model: tf.keras.Model, found: Dependencies, kept: np.ndarray) -> tf.keras.Model:
    """A new model with only those atoms left, bool [atoms], and the weights that they had."""

    def smaller(layer: Any) -> Any:
        if isinstance(layer, tf.keras.Model):
            return tf.keras.models.clone_model(layer, clone_function=smaller)
        # From its configuration, so that whatever else a layer has been told stays.
        config = layer.get_config()
        c = found.layers.get(layer.name)
        if c is not None:
            width = int(kept[c.outputs].sum())
            heads = None if c.heads is None else int(kept[c.heads].sum())
            if c.produces:
                config = resized(layer, config, width, heads, c.groups(kept))
            elif isinstance(layer, tf.keras.layers.Reshape):
                config["target_shape"] = (*layer.target_shape[:-1], width)
        return type(layer).from_config(config)

    clone = tf.keras.models.clone_model(model, clone_function=smaller)
    _copy_weights(model, clone, found.layers, kept)
    return clone


def _copy_weights(
    old: tf.keras.Model, new: tf.keras.Model, layers: Mapping[str, LayerChannels], kept: np.ndarray
) -> None:
    for source, target in zip(old.layers, new.layers, strict=True):
        if isinstance(source, tf.keras.Model):
            _copy_weights(source, target, layers, kept)
            continue
        weights = source.get_weights()
        c = layers.get(source.name)
        if c is not None:
            masks = c.masks(kept)
            for i, axes in enumerate(c.axes):
                for axis, name in axes.items():
                    weights[i] = np.compress(masks[name], weights[i], axis=axis)
        target.set_weights(weights)


def layers_left(pruning: Pruning, kept: np.ndarray) -> tuple[LayerSparsity, ...]:
    """What became of each layer that has channels of its own."""
    layers, ratios = [], _ratios(pruning)
    for name, c in pruning.found.layers.items():
        if c.produces:
            masks = c.masks(kept)
            counts = {place: int(mask.sum()) for place, mask in masks.items()}
            kernel, axes = c.layer.weights[0], c.axes[0]
            shape = tuple(
                counts[axes[axis]] if axis in axes else int(width)
                for axis, width in enumerate(kernel.shape)
            )
            left, width = counts["out"], len(c.outputs)
            note = f"{width - left} of {width} channels removed"
            size = int(np.prod(shape))
            gone, before = 1 - left / width, int(np.prod(kernel.shape))
            asked = ratios.get(name, 0.0)
            layers.append(
                LayerSparsity(name, shape, "channels", asked, 0, size, note, gone, before)
            )
    return tuple(layers)
