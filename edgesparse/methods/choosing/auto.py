"""What `auto` stands for in magnitude pruning: patterns that a target exploits, sparsities that
keep the accuracy."""

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
from edgesparse.methods.magnitude import magnitude
from edgesparse.methods.network.kernels import EXCLUDED, kernels, prunable
from edgesparse.methods.report import Coverage, LayerSparsity, Sparsified, require_covered
from edgesparse.methods.training.callbacks import Progress
from edgesparse.methods.training.fitting import recipe_of
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.safe.text import listed
from edgesparse.spec.sparsify import Channels, LayerChoice, LayerOverride, Magnitude

CHANNEL_MULTIPLE = 16
"""Wide enough for every block."""
INSTEAD = "channels were removed instead"
NO_GAIN = "the target exploits no zeros in it"


@dataclass(frozen=True)
class Resolved:
    """A spec without `pattern: auto`; `whole` are the layers whose zeros gain nothing."""

    spec: Magnitude
    whole: tuple[str, ...] = ()


def resolve(model: tf.keras.Model, spec: Magnitude, chosen: Mapping[str, LayerChoice]) -> Resolved:
    """Put the chosen patterns in place of `pattern: auto`; the user's own overrides come last.

    Args:
        chosen: by layer; those that are not in it are pruned unstructured.
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
    found: Sensitivity | None = None,
) -> Sparsified:
    """Magnitude pruning with whatever `auto` stands for.

    Layers whose zeros gain nothing lose channels instead: the square root of their share stays both
    of inputs and of outputs, so that as many of their weights go as with zeros; those that can lose
    none have zeros all the same. With `sparsity: auto` they stay as they are.

    Args:
        found: how sensitive each layer is, for `sparsity: auto`.

    Raises:
        EdgesparseError: less than half was reached of what was asked for.
    """
    spec, whole = resolved.spec, resolved.whole
    if found is not None:
        done = _with_sparsities(model, dataset, train, spec, found, progress)
        done = replace(done, coverage=_because(done.coverage, whole, NO_GAIN))
        return replace(done, notes=(*done.notes, *_left_alone(whole)))
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
            notes = (*notes, f"zeros instead of removed channels, of which none can go: {names}")
    if set(prunable(model)) - _excluded(model, rest):
        done = magnitude(model, dataset, train, rest, progress)
    else:
        done = Sparsified(model, {}, ())
    if whole:
        coverage = _because(done.coverage, smaller, INSTEAD) or Coverage(spec.sparsity, 0.0, ())
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
    """The step with as many zeros in layers that lost no channels that, with the inputs they lost,
    what was asked for is reached; and which these are."""
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
    """The model with fewer channels in the layers whose zeros gain nothing, as far as they can lose
    any; those that did, and notes."""
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
        done = channels(model, dataset, train, budget, _named(progress), only=resolved.whole)
    except UsageError:  # None of them can.
        return model, (), ()
    smaller = tuple(x for x in done.layers if x.name in resolved.whole and x.removed)
    return (done.model, smaller, done.notes) if smaller else (model, (), ())


def _because(done: Coverage | None, names: Collection[str], why: str) -> Coverage | None:
    """The same, with the reason why layers stay dense that were left out here, not by the user."""
    if done is None:
        return None
    left = (
        replace(one, reason=why) if one.name in names and one.reason == EXCLUDED else one
        for one in done.left_dense
    )
    return replace(done, left_dense=tuple(left))


def _excluded(model: tf.keras.Model, spec: Magnitude) -> set[str]:
    found = prunable(model)
    return {name for name, kernel in found.items() if spec.excludes(kernel.names)}


def _left_alone(whole: Sequence[str]) -> tuple[str, ...]:
    if not whole:
        return ()
    return (f"{len(whole)} layer{'s' * (len(whole) > 1)} without zeros: the target exploits none",)


def _named(progress: Progress) -> Progress:
    return lambda share, text: progress(share, f"channels, {text}")


def _with_sparsities(
    model: tf.keras.Model,
    dataset: Dataset,
    train: Train,
    spec: Magnitude,
    found: Sensitivity,
    progress: Progress,
) -> Sparsified:
    """The sparsest proposal that keeps the accuracy once it is fine-tuned, found by bisection.

    Raises:
        EdgesparseError: none does.
    """
    assert spec.max_accuracy_drop is not None
    metric = recipe_of(model, dataset, train).metric
    if metric.unit == "%" and spec.max_accuracy_drop >= 1:
        raise UsageError(
            f"max_accuracy_drop: {metric.name} is a share; write "
            f"{spec.max_accuracy_drop / 100:g} for {spec.max_accuracy_drop:g} points"
        )
    weights, kept = model.get_weights(), []
    patterns = {curve.name: curve.pattern for curve in found.layers}
    candidates = found.candidates(spec.max_accuracy_drop)
    # Bisection: fine-tuning is what costs.
    tries = len(candidates).bit_length()
    best: Sparsified | None = None
    reached, first, last, tried = -math.inf, 0, len(candidates), 0
    while first < last:
        middle = (first + last) // 2
        # From the dense weights each time: a try must not profit from the one before.
        model.set_weights(weights)
        overrides = {
            name: LayerOverride(sparsity=sparsity, pattern=patterns[name])
            for name, sparsity in candidates[middle].items()
        }
        overrides |= {  # What the user has fixed stays so.
            glob: LayerOverride(sparsity=own.sparsity, pattern=own.pattern or patterns.get(glob))
            for glob, own in spec.layers.items()
            if own.sparsity is not None
        }
        update = {"sparsity": 0.0, "pattern": "unstructured", "layers": overrides}
        tell = _part(progress, tried, tries)
        done = magnitude(model, dataset, train, spec.model_copy(update=update), tell)
        tried += 1
        accuracy = validation_accuracy(done.model, dataset)
        reached = max(reached, accuracy)
        # On validation data; the test split is for the report.
        if found.keeps(accuracy, spec.max_accuracy_drop):
            said = ", ".join(f"{n} {s:g}" for n, s in candidates[middle].items())
            best = replace(done, notes=(f"sparsity by layer: {said}",))
            kept = done.model.get_weights()
            last = middle
        else:
            first = middle + 1
    if best is None:
        tried_best = f"best {abs(reached):.3g}, " if tried else ""
        raise EdgesparseError(
            f"no sparsity keeps {metric.name} within {spec.max_accuracy_drop:g} of "
            f"{abs(found.accuracy):.3g} ({tried_best}on validation data); allow more, "
            "or fine-tune for more epochs"
        )
    # All tries have the same layers.
    best.model.set_weights(kept)
    return best


def _part(progress: Progress, tried: int, tries: int) -> Progress:
    return lambda share, text: progress(
        (tried + share) / tries, f"proposal {tried + 1} of at most {tries}, {text}"
    )
