"""Channel pruning of functional Keras models.

The least important channels are removed from all layers that share them (Li et al. 2016, arXiv
1608.08710; by the scale of batch normalizations Liu et al. 2017, arXiv 1708.06519), then the
smaller model is fine-tuned. It has no zeros, so that every runtime is faster, with int8 and on an
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
from edgesparse.methods.coverage import LayerSparsity, Sparsified
from edgesparse.methods.network.cost import cost
from edgesparse.methods.network.dependencies import Dependencies, Group, check_shrunk, trace
from edgesparse.methods.network.layer_channels import LayerChannels, resized
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import comparison_samples, fit
from edgesparse.spec.errors import EdgesparseError, UsageError, did_you_mean
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import (
    AUTO_MULTIPLE,
    REPORTED_GAP,
    Channels,
    Importance,
    finer_multiple,
)

Measure = Callable[[Sequence[tf.keras.Model]], list[float]]
"""Returns the latencies of models on the target, in ms, measured together."""
_STEPS = 40  # Of bisection: to far below a single channel.
_CANDIDATES = 5


def channels(
    model: tf.keras.Model,
    dataset: Dataset,
    train: Train,
    spec: Channels,
    progress: Progress,
    measure: Measure | None = None,
    only: Collection[str] | None = None,
    channel_multiple: int = AUTO_MULTIPLE,
) -> Sparsified:
    """Remove channels until the budget is met, and fine-tune the rest.

    Args:
        model: a flat functional model.
        dataset: data of the fine-tuning.
        train: settings of the fine-tuning, with the epochs, learning rate and batch size of `spec`.
        spec: the step.
        progress: callback.
        measure: measures latencies; required for `spec.latency`.
        only: layers that can lose channels; default: all.
        channel_multiple: widths are multiples of it where `spec.round_to` is auto.

    Raises:
        UsageError: a layer glob matches nothing, or no layer can lose channels.
        EdgesparseError: the budget cannot be met.
    """
    dependencies = trace(model)
    groups = choose_groups(dependencies, spec, only)
    pruning = Pruning(model, dependencies, groups, spec, channel_multiple)
    # All together, then fine-tuned: pruning layer by layer takes a training each.
    kept = _within_budget(pruning, spec, measure)
    removed = require_removed(pruning, kept)
    smaller = shrink(model, dependencies, kept)
    check_shrunk(model, smaller, dependencies, kept, comparison_samples(model, dataset))
    history = fit(smaller, dataset, train, progress)
    note = remaining_cost(dependencies, kept)
    if spec.round_to == "auto":
        note += f", widths in multiples of {channel_multiple}"
    if spec.ratio is not None and abs(spec.ratio - removed) > REPORTED_GAP:
        note += f"; requested removal of {spec.ratio:.0%} of channels, reached {removed:.0%}"
        note += _reasons(dependencies)
    return Sparsified(smaller, history, layer_reports(pruning, kept), (note,))


def remaining_cost(dependencies: Dependencies, kept: np.ndarray) -> str:
    """Describe the remaining share of a model's cost."""
    before, after = cost(dependencies, np.ones_like(kept)), cost(dependencies, kept)
    return (
        f"channels removed: {after.macs / max(1, before.macs):.0%} of the multiply-accumulates and "
        f"{after.parameters / max(1, before.parameters):.0%} of the weights remain"
    )


def require_removed(pruning: Pruning, kept: np.ndarray) -> float:
    """Return the share of removed channels among the removable ones.

    Raises:
        EdgesparseError: less than half of the ratio was reached without `allow_partial`.
    """
    atoms = np.concatenate([group.atoms for group in pruning.groups])
    removed = float(np.mean(~kept[atoms]))
    spec = pruning.spec
    if spec.ratio and removed < spec.ratio / 2 and not spec.allow_partial:
        rounding = "" if spec.round_to == "auto" else f"round_to: {spec.round_to}, "
        raise EdgesparseError(
            f"requested removal of {spec.ratio:.0%} of channels, reached {removed:.0%} ({rounding}"
            f"max_pruning_ratio: {spec.max_pruning_ratio:g}){_reasons(pruning.dependencies)}; "
            "lower 'round_to', or set 'allow_partial: true' on this step to accept"
        )
    return removed


@dataclass(frozen=True)
class Pruning:
    """Removable channels of a model, and the step that removes them."""

    model: tf.keras.Model
    dependencies: Dependencies
    groups: Sequence[Group]
    spec: Channels
    channel_multiple: int = AUTO_MULTIPLE

    @cached_property
    def scores(self) -> np.ndarray:
        return importance(self.dependencies, self.spec.importance)

    def kept(self, share: float) -> np.ndarray:
        """Return the atoms that stay when a share of the channels is removed: bool [atoms]."""
        scores = self.scores
        kept = np.ones(len(self.dependencies.fixed), bool)
        ratios = [_override_ratio(group, self.spec) for group in self.groups]
        # Layers with a ratio in `layers` are not part of the common limit.
        pooled = [g for g, r in zip(self.groups, ratios, strict=True) if r is None]
        limit = np.inf
        if self.spec.scope == "global" and pooled:
            everything = np.sort(np.concatenate([scores[g.atoms] for g in pooled]))
            count = round(share * len(everything))
            limit = everything[count] if count < len(everything) else np.inf
        for group, ratio in zip(self.groups, ratios, strict=True):
            group_scores = scores[group.atoms]
            if ratio is not None:
                removed = round(ratio * len(group_scores))
            elif self.spec.scope == "global":
                removed = int(np.sum(group_scores < limit))
            else:
                removed = round(share * len(group_scores))
            left = self._round(len(group_scores) - removed, len(group_scores))
            # Stable, so that equal channels are removed in their order.
            order = np.argsort(group_scores, kind="stable")
            kept[group.atoms[order[: len(group_scores) - left]]] = False
        return kept

    def _round(self, left: int, width: int) -> int:
        """Return a width that is a multiple, not below the minimum and at most `width`."""
        fixed = self.spec.round_to
        multiple = finer_multiple(self.channel_multiple, width) if fixed == "auto" else fixed
        least = max(1, int(np.ceil(width * (1 - self.spec.max_pruning_ratio))))
        # To the nearest multiple, but not below max_pruning_ratio's minimum.
        rounded = max((left + multiple // 2) // multiple, -(-least // multiple), 1) * multiple
        return min(width, rounded)


def _override_ratio(group: Group, spec: Channels) -> float | None:
    """Return the ratio of the last override that matches a layer of the group."""
    ratio = None
    for glob, override in spec.layers.items():
        if any(fnmatchcase(layer, glob) for layer in group.layers):
            ratio = override.ratio
    return ratio


def _ratios(pruning: Pruning) -> dict[str, float]:
    """Return target ratios by layer; none for budgets, or for a ratio over all channels."""
    common = pruning.spec.ratio if pruning.spec.scope == "layer" else None
    return {
        layer: ratio
        for group in pruning.groups
        if (ratio := _override_ratio(group, pruning.spec) or common) is not None
        for layer in group.layers
    }


def choose_groups(
    dependencies: Dependencies, spec: Channels, only: Collection[str] | None
) -> list[Group]:
    """Return the removable channels. Raises UsageError where a glob matches nothing, or there are
    none."""
    names = [name for name, c in dependencies.layers.items() if c.produces]
    for glob in [*spec.exclude, *spec.layers]:
        if not any(fnmatchcase(name, glob) for name in names):
            raise UsageError(f"{glob!r} matches no layer with channels{did_you_mean(glob, names)}")
    groups = [
        group
        for group in dependencies.groups()
        if not any(fnmatchcase(layer, glob) for layer in group.layers for glob in spec.exclude)
        and (only is None or set(group.layers) <= set(only))
    ]
    if not groups:
        raise UsageError(f"no layer can lose channels{_reasons(dependencies)}")
    return groups


def channel_layers(model: tf.keras.Model) -> tuple[tuple[str, ...], str | None]:
    """Return the layers with output channels, and the reason where none can lose any, else None."""
    dependencies = trace(model)
    widths = tuple(name for name, c in dependencies.layers.items() if c.produces)
    return (
        widths,
        None if dependencies.groups() else f"no layer can lose channels{_reasons(dependencies)}",
    )


def _reasons(dependencies: Dependencies) -> str:
    reasons = "; ".join(f"{layer}: {why}" for layer, why in list(dependencies.reasons.items())[:4])
    return f" ({reasons})" if reasons else ""


def importance(dependencies: Dependencies, kind: Importance) -> np.ndarray:
    """Return the importance of atoms: float [atoms], 1 for the average channel of its layers."""
    total, count = np.zeros(len(dependencies.fixed)), np.zeros(len(dependencies.fixed))
    if kind == "batch-norm":
        scales = [
            (c.outputs, np.abs(c.layer.gamma.numpy()))
            for c in dependencies.layers.values()
            if isinstance(c.layer, tf.keras.layers.BatchNormalization)
            and c.layer.scale
            and c.rows is None
        ]
        if not scales:
            raise UsageError(
                "importance: batch-norm requires BatchNormalization layers with a scale"
            )
        _add_scores(scales, total, count)
    norms = []
    for c in dependencies.layers.values():
        if c.produces:
            weight, axes = c.layer.get_weights(), c.axes
            index = max(i for i, a in enumerate(axes) if "out" in a.values() and weight[i].ndim > 1)
            (axis,) = [a for a, kind_of in axes[index].items() if kind_of == "out"]
            # A row for each output channel, whatever the order of the layer's axes.
            kernel = np.moveaxis(weight[index], axis, 0).reshape(len(c.outputs), -1)
            norm = np.linalg.norm(kernel, 1 if kind == "l1" else 2, axis=1)
            norms.append((c.outputs, norm * _folded(c.normalizer, len(norm))))
            if c.heads is not None:  # By their weights in the output projection.
                kernel = weight[index].reshape(len(c.heads), -1)
                norms.append((c.heads, np.linalg.norm(kernel, 1 if kind == "l1" else 2, axis=1)))
    rest, rest_count = np.zeros_like(total), np.zeros_like(count)
    _add_scores(norms, rest, rest_count)
    # Channels without a batch normalization are ranked by their weights, on the same scale.
    missing = count == 0
    total[missing], count[missing] = rest[missing], rest_count[missing]
    return total / np.maximum(count, 1)


def _folded(normalizer: Any, width: int) -> np.ndarray:
    """Return the factor of each channel by its batch normalization, as a converter folds it."""
    if normalizer is None:
        return np.ones(width)
    deviation = np.sqrt(normalizer.moving_variance.numpy() + normalizer.epsilon)
    scale = np.abs(normalizer.gamma.numpy()) if normalizer.scale else np.ones(width)
    return scale / deviation


def _add_scores(
    scores: Sequence[tuple[np.ndarray, np.ndarray]], total: np.ndarray, count: np.ndarray
) -> None:
    for atoms, values in scores:
        # Relative to the layer's average: else layers of small scale would be emptied first.
        # add.at, since an atom can occur twice.
        np.add.at(total, atoms, values / max(float(values.mean()), 1e-12))
        np.add.at(count, atoms, 1)


def _within_budget(pruning: Pruning, spec: Channels, measure: Measure | None) -> np.ndarray:
    if spec.ratio is not None:
        return pruning.kept(spec.ratio)
    if spec.latency is not None:
        if measure is None:
            raise EdgesparseError("a latency budget requires a device to measure on")
        return _within_latency(pruning, spec.latency, measure)
    name, budget = ("macs", spec.macs) if spec.macs is not None else ("parameters", spec.parameters)
    assert budget is not None
    return _within_cost(pruning, name, budget)


def _within_cost(pruning: Pruning, name: str, budget: float) -> np.ndarray:
    """Return the most channels with at most `budget` of the model's `name`, by bisection."""
    whole = getattr(
        cost(pruning.dependencies, np.ones(len(pruning.dependencies.fixed), bool)), name
    )

    def left(kept: np.ndarray) -> float:
        return float(getattr(cost(pruning.dependencies, kept), name) / max(1, whole))

    low, high, best = 0.0, 1.0, pruning.kept(1.0)
    if left(best) > budget:
        raise EdgesparseError(
            f"cannot reach {name}: {budget:g}; the minimum is {left(best):.2f} with the current "
            f"max_pruning_ratio, exclude and round_to{_reasons(pruning.dependencies)}"
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
    """Return the most channels within a latency: measure candidates, then others between two."""
    low, high = 0.0, 1.0
    best: np.ndarray | None = None
    reached = 1.0
    # Two sweeps of five narrow the range to a 25th, as five bisections would, in two jobs.
    for _ in range(2):
        shares = np.linspace(low, high, _CANDIDATES + 1)[1:]
        masks = [pruning.kept(share) for share in shares]
        models = [shrink(pruning.model, pruning.dependencies, kept) for kept in masks]
        # Together with the dense model: ratios within a job, so that drift cancels out.
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
            f"cannot reach latency: {budget:g}; the minimum is {reached:.2f} of the dense model's "
            "time with the current max_pruning_ratio, exclude and round_to"
        )
    return best


def shrink(model: tf.keras.Model, dependencies: Dependencies, kept: np.ndarray) -> tf.keras.Model:
    """Return a new model with only the kept atoms, bool [atoms], and their weights."""

    def smaller(layer: Any) -> Any:
        if isinstance(layer, tf.keras.Model):
            return tf.keras.models.clone_model(layer, clone_function=smaller)
        # From its configuration, so that all other arguments are kept.
        config = layer.get_config()
        c = dependencies.layers.get(layer.name)
        if c is not None:
            width = int(kept[c.outputs].sum())
            heads = None if c.heads is None else int(kept[c.heads].sum())
            if c.produces:
                config = resized(layer, config, width, heads, c.groups(kept))
            elif isinstance(layer, tf.keras.layers.Reshape):
                config["target_shape"] = (*layer.target_shape[:-1], width)
        return type(layer).from_config(config)

    clone = tf.keras.models.clone_model(model, clone_function=smaller)
    _copy_weights(model, clone, dependencies.layers, kept)
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


def layer_reports(pruning: Pruning, kept: np.ndarray) -> tuple[LayerSparsity, ...]:
    """Return the removed share of each layer with output channels."""
    layers, ratios = [], _ratios(pruning)
    for name, c in pruning.dependencies.layers.items():
        if c.produces:
            masks = c.masks(kept)
            counts = {axis_role: int(mask.sum()) for axis_role, mask in masks.items()}
            kernel, axes = c.layer.weights[0], c.axes[0]
            shape = tuple(
                counts[axes[axis]] if axis in axes else int(width)
                for axis, width in enumerate(kernel.shape)
            )
            left, width = counts["out"], len(c.outputs)
            note = f"{width - left} of {width} channels removed"
            size = int(np.prod(shape))
            gone, before = 1 - left / width, int(np.prod(kernel.shape))
            target = ratios.get(name, 0.0)
            layers.append(
                LayerSparsity(name, shape, "channels", target, 0, size, note, gone, before)
            )
    return tuple(layers)
