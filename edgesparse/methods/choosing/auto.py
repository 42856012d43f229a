"""Resolution of `auto` in magnitude pruning: patterns that a target exploits, sparsities that keep
the accuracy."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from edgesparse.data import Dataset
from edgesparse.methods.channels import channels
from edgesparse.methods.choosing.curves import Sensitivity
from edgesparse.methods.choosing.sensitivity import validation_accuracy
from edgesparse.methods.coverage import Coverage, LayerSparsity, Sparsified, require_covered
from edgesparse.methods.magnitude import magnitude
from edgesparse.methods.network.kernels import EXCLUDED, kernels, prunable
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import recipe_of
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.safe.text import listed
from edgesparse.spec.sparsify import Channels, LayerChoice, LayerOverride, Magnitude
from edgesparse.spec.step import Pattern

CHANNEL_MULTIPLE = 16
"""Multiple of every block's length, so that blocks still fit after channels were removed."""
INSTEAD = "channels were removed instead"
NO_GAIN = "the target does not exploit its zeros"


@dataclass(frozen=True)
class Resolved:
    """A spec without `pattern: auto`; `whole`: layers whose zeros the target does not exploit."""

    spec: Magnitude
    whole: tuple[str, ...] = ()


def resolve(model: tf.keras.Model, spec: Magnitude, chosen: Mapping[str, LayerChoice]) -> Resolved:
    """Replace `pattern: auto` by the chosen patterns; the user's overrides take precedence.

    Args:
        model: the model to prune.
        spec: the step.
        chosen: choices by layer; other layers are pruned unstructured.
    """
    if spec.pattern != "auto":
        return Resolved(spec)
    excluded = _excluded(model, spec)
    layers = [name for name in prunable(model) if name not in excluded]
    whole = [name for name in layers if chosen.get(name) == "channels"]
    overrides = {
        name: LayerOverride(pattern=pattern)
        for name in layers
        if (pattern := chosen.get(name)) is not None and pattern != "channels"
    }
    update = {
        "pattern": "unstructured",
        "layers": {**overrides, **spec.layers},
        "exclude": [*spec.exclude, *whole],
    }
    return Resolved(spec.model_copy(update=update), tuple(whole))


def prune(
    model: tf.keras.Model,
    dataset: Dataset,
    train: Train,
    resolved: Resolved,
    progress: Progress,
    sensitivity: Sensitivity | None = None,
) -> Sparsified:
    """Prune by magnitude with `auto` resolved.

    Layers whose zeros the target does not exploit lose channels instead: the square root of the
    remaining share of inputs and of outputs, so that as many weights are removed as there would be
    zeros; those that cannot lose channels get zeros. With `sparsity: auto` they stay dense.

    Args:
        model: the model to prune.
        dataset: data of the fine-tuning.
        train: settings of the fine-tuning.
        resolved: see `resolve`.
        progress: callback.
        sensitivity: sensitivity of each layer, for `sparsity: auto`.

    Raises:
        EdgesparseError: less than half of the target was achieved.
    """
    spec, whole = resolved.spec, resolved.whole
    if sensitivity is not None:
        done = _with_sparsities(model, dataset, train, spec, sensitivity, progress)
        done = replace(done, coverage=_with_reason(done.coverage, whole, NO_GAIN))
        return replace(done, notes=(*done.notes, *_dense_note(whole)))
    assert not isinstance(spec.sparsity, str)
    before = {name: kernel.size for name, kernel in kernels(model).items()}
    removed: tuple[LayerSparsity, ...] = ()
    notes: tuple[str, ...] = ()
    if whole:
        model, removed, notes = _without_channels(model, dataset, train, resolved, progress)
    smaller = {layer.name for layer in removed}
    rest = spec
    if whole:
        rest, unable = _with_zeros_instead(model, spec, set(whole) - smaller, before)
        if unable:
            names = listed(unable, 4)
            notes = (*notes, f"zeros instead of removed channels, which cannot be removed: {names}")
    if set(prunable(model)) - _excluded(model, rest):
        done = magnitude(model, dataset, train, rest, progress)
    else:
        done = Sparsified(model, {}, ())
    if whole:
        coverage = _with_reason(done.coverage, smaller, INSTEAD) or Coverage(spec.sparsity, 0.0, ())
        left = sum(int(np.count_nonzero(k.variable)) for k in kernels(done.model).values())
        coverage = replace(coverage, achieved=1 - left / max(1, sum(before.values())))
        require_covered(coverage, spec.allow_partial)
        done = replace(done, coverage=coverage)
    return replace(
        done,
        layers=(*removed, *done.layers),
        notes=(*notes, *done.notes),
        keeps_layers=done.keeps_layers and not removed,
    )


def _with_zeros_instead(
    model: tf.keras.Model, spec: Magnitude, names: Collection[str], before: Mapping[str, int]
) -> tuple[Magnitude, list[str]]:
    """Return the step with zeros in layers that lost no channels, as many as reach the target with
    the inputs that they lost; and the names of these layers."""
    assert not isinstance(spec.sparsity, str)
    overrides = {}
    for name, kernel in kernels(model).items():
        share = 1 - (1 - spec.sparsity) * before[name] / kernel.size
        if name in names and share > 0:
            overrides[name] = LayerOverride(sparsity=share)
    update = {
        "exclude": [name for name in spec.exclude if name not in overrides],
        "layers": {**overrides, **spec.layers},
        "allow_partial": True,  # Coverage is checked over both steps.
    }
    return spec.model_copy(update=update), list(overrides)


def _without_channels(
    model: tf.keras.Model,
    dataset: Dataset,
    train: Train,
    resolved: Resolved,
    progress: Progress,
) -> tuple[tf.keras.Model, tuple[LayerSparsity, ...], tuple[str, ...]]:
    """Return the model with fewer channels in the layers whose zeros are not exploited, as far as
    they can lose any; the layers that did, and notes."""
    spec = resolved.spec
    assert not isinstance(spec.sparsity, str)
    budget = Channels(
        method="channels",
        ratio=1 - math.sqrt(1 - spec.sparsity),
        round_to=CHANNEL_MULTIPLE,
        epochs=spec.epochs,
        allow_partial=True,
    )
    try:
        done = channels(
            model, dataset, train, budget, _channel_progress(progress), only=resolved.whole
        )
    except UsageError:  # None of them can.
        return model, (), ()
    smaller = tuple(x for x in done.layers if x.name in resolved.whole and x.removed)
    return (done.model, smaller, done.notes) if smaller else (model, (), ())


def _with_reason(done: Coverage | None, names: Collection[str], why: str) -> Coverage | None:
    """Return the coverage with the reason of layers that were excluded here, not by the user."""
    if done is None:
        return None
    left = (
        replace(item, reason=why) if item.name in names and item.reason == EXCLUDED else item
        for item in done.left_dense
    )
    return replace(done, left_dense=tuple(left))


def _excluded(model: tf.keras.Model, spec: Magnitude) -> set[str]:
    layers = prunable(model)
    return {name for name, kernel in layers.items() if spec.excludes(kernel.names)}


def _dense_note(whole: Sequence[str]) -> tuple[str, ...]:
    if not whole:
        return ()
    layers = f"{len(whole)} layer{'s' * (len(whole) > 1)}"
    return (f"{layers} left dense: the target would not exploit zeros",)


def _channel_progress(progress: Progress) -> Progress:
    return lambda share, text: progress(share, f"channels, {text}")


def _with_sparsities(
    model: tf.keras.Model,
    dataset: Dataset,
    train: Train,
    spec: Magnitude,
    sensitivity: Sensitivity,
    progress: Progress,
) -> Sparsified:
    """Prune by the sparsest proposal that keeps the accuracy after fine-tuning, by bisection.

    Raises:
        EdgesparseError: no proposal keeps it.
    """
    assert spec.max_accuracy_drop is not None
    metric = recipe_of(model, dataset, train).metric
    if metric.unit == "%" and spec.max_accuracy_drop >= 1:
        raise UsageError(
            f"max_accuracy_drop: {metric.name} is a share; write "
            f"{spec.max_accuracy_drop / 100:g} for {spec.max_accuracy_drop:g} points"
        )
    weights, kept = model.get_weights(), []
    patterns = {curve.name: curve.pattern for curve in sensitivity.layers}
    candidates = sensitivity.candidates(spec.max_accuracy_drop)
    # Bisection: fine-tuning dominates the cost.
    tries = len(candidates).bit_length()
    best: Sparsified | None = None
    reached, first, last, tried = -math.inf, 0, len(candidates), 0
    while first < last:
        middle = (first + last) // 2
        # From the dense weights each time: a trial must not profit from the one before.
        model.set_weights(weights)
        step = _with_layers(spec, candidates[middle], patterns)
        done = magnitude(model, dataset, train, step, _part(progress, tried, tries))
        tried += 1
        accuracy = validation_accuracy(done.model, dataset)
        reached = max(reached, accuracy)
        # On validation data; the test split is for the report.
        if sensitivity.keeps(accuracy, spec.max_accuracy_drop):
            levels = ", ".join(f"{n} {s:g}" for n, s in candidates[middle].items())
            best = replace(done, notes=(f"sparsity by layer: {levels}",))
            kept = done.model.get_weights()
            last = middle
        else:
            first = middle + 1
    if best is None:
        tried_best = f"best {abs(reached):.3g}, " if tried else ""
        raise EdgesparseError(
            f"no sparsity keeps {metric.name} within {spec.max_accuracy_drop:g} of "
            f"{abs(sensitivity.accuracy):.3g} ({tried_best}on validation data); allow more, "
            "or fine-tune for more epochs"
        )
    # All trials have the same layers.
    best.model.set_weights(kept)
    return best


def _with_layers(
    spec: Magnitude, sparsities: Mapping[str, float], patterns: Mapping[str, Pattern]
) -> Magnitude:
    """Return the step with a sparsity for each layer; the user's own are kept."""
    layers = {
        name: LayerOverride(sparsity=sparsity, pattern=patterns[name])
        for name, sparsity in sparsities.items()
    }
    layers |= {
        glob: LayerOverride(
            sparsity=override.sparsity, pattern=override.pattern or patterns.get(glob)
        )
        for glob, override in spec.layers.items()
        if override.sparsity is not None
    }
    update = {"sparsity": 0.0, "pattern": "unstructured", "layers": layers}
    return spec.model_copy(update=update)


def _part(progress: Progress, tried: int, tries: int) -> Progress:
    return lambda share, text: progress(
        (tried + share) / tries, f"proposal {tried + 1} of at most {tries}, {text}"
    )
