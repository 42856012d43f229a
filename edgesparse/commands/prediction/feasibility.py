"""Predictions of variants that fail on a pipeline's model, or cannot reach their sparsity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from edgesparse.commands.prediction.outcomes import Prediction
from edgesparse.spec.errors import SpecError, UsageError, did_you_mean
from edgesparse.spec.pipeline import Pipeline, Variant
from edgesparse.spec.reading.document import Document, Location
from edgesparse.spec.reading.load import Loaded
from edgesparse.spec.safe.text import listed
from edgesparse.spec.sparsify import (
    L1,
    REPORTED_GAP,
    Activations,
    Magnitude,
    OneShot,
    Rigl,
    SparsifyReference,
    matches,
    removes_channels,
)
from edgesparse.spec.step import BLOCKS
from edgesparse.spec.trained_methods import MAX_KERNEL_SPARSITY
from edgesparse.stages.preflight import Facts, KernelInfo

_NAMED = 3
_WEIGHTS = ("weight", *BLOCKS)
"""Groups of the penalty that leave zeros in kernels, and take away nothing else."""


def check(loaded: Loaded[Pipeline], variants: Sequence[str], facts: Facts) -> list[Prediction]:
    """Predict failures and missing coverage.

    Raises:
        UsageError: no variant is feasible, or a glob matches no layer of the model.
    """
    document = loaded.document
    if facts.error is not None:
        location: Location = ("variants", variants[0], "model")
        location = location if location in document.values else ("model",)
        raise UsageError(f"{document.where(location)}: {facts.error}")
    chosen = {name: loaded.spec.variants[name] for name in variants}
    _check_training(loaded, chosen, facts)
    problems = [
        document.problem(location, text)
        for name, variant in chosen.items()
        for location, text in _unmatched(document, name, variant, facts)
    ]
    if problems:
        raise SpecError(problems)
    failing = {name: why for name, v in chosen.items() if (why := _why_it_fails(v, facts))}
    if failing and set(failing) == set(loaded.spec.variants):
        reasons = "; ".join(f"{name}: {why}" for name, why in failing.items())
        raise UsageError(f"{document.path}: no variant is feasible: {reasons}")
    predictions = [Prediction("task", line) for line in facts.info]
    predictions += [Prediction("note", note) for note in facts.notes]
    for why in dict.fromkeys(failing.values()):
        names = tuple(name for name in failing if failing[name] == why)
        predictions.append(Prediction("failure", f"{{variants}} will fail: {why}", names))
    left = tuple(n for n, v in chosen.items() if v.quantize.qat and n not in failing)
    if facts.skipped_by_qat and left:
        named = listed(facts.skipped_by_qat, _NAMED)
        text = f"{{variants}}: not quantization-aware, with ranges from calibration: {named}"
        predictions.append(Prediction("coverage", text, left))
    return [*predictions, *_coverage(chosen, facts.kernels)]


def _check_training(loaded: Loaded[Pipeline], chosen: Mapping[str, Variant], facts: Facts) -> None:
    """Raise UsageError where the model defines a training (a custom loss, train_step) that the
    pipeline would ignore."""
    train = loaded.spec.train
    later = any(_is_fine_tuned(variant) for variant in chosen.values())
    unused = (facts.unused_in_training if train.epochs else "") or (
        facts.unused_in_fine_tuning if later else ""
    )
    if not unused or train.ref is not None:
        return
    when = "training" if train.epochs and facts.unused_in_training else "fine-tuning"
    raise UsageError(
        f"{loaded.document.where(('model',))}: {unused} is not used in {when}, which keeps only "
        "the model's layers; set a training loop, train: {ref: my_loop.py:train}, or train the "
        "model beforehand and set epochs: 0"
    )


def _is_fine_tuned(variant: Variant) -> bool:
    quantize = variant.quantize
    steps = any(getattr(step, "epochs", 0) for step in variant.sparsify)
    return steps or bool(quantize.qat and quantize.epochs)


def _why_it_fails(variant: Variant, facts: Facts) -> str | None:
    first = variant.sparsify[0] if variant.sparsify else None
    if first is not None and removes_channels(first) and facts.channels_error is not None:
        return facts.channels_error
    if isinstance(first, Magnitude) and not any(not k.reason for k in facts.kernels):
        named = any(kernel.name in first.layers for kernel in facts.kernels)
        if not named:
            reasons = "; ".join(f"{k.name}: {k.reason}" for k in facts.kernels[:_NAMED])
            return "no layer to prune" + (f" ({reasons})" if reasons else "")
    if variant.quantize.qat and facts.qat_error is not None:
        return f"quantization-aware training does not support this model: {facts.qat_error}"
    # Channels that are removed, or zeros, change no operator.
    return facts.conversion_errors.get(variant.quantize.scheme)


def _unmatched(
    document: Document, name: str, variant: Variant, facts: Facts
) -> Iterator[tuple[Location, str]]:
    """Find globs that match no layer."""
    for i, step in enumerate(variant.sparsify):
        if isinstance(step, SparsifyReference | Activations):
            continue  # Their layers are known only when they run.
        location: Location = ("variants", name, "sparsify")
        location = (*location, i) if (*location, i) in document.values else location
        if removes_channels(step):
            layers, what = set(facts.channel_layers), "layer with channels"
        else:
            layers = {x for k in facts.kernels for x in (k.name, k.layer)}
            what = "layer that can be pruned"
        globs: list[tuple[Location, str]] = [
            *((("exclude", n), glob) for n, glob in enumerate(step.exclude)),
            *((("layers", glob), glob) for glob in getattr(step, "layers", ())),
        ]
        for key, glob in globs:
            if not any(fnmatchcase(layer, glob) for layer in layers):
                yield (*location, *key), f"{glob!r} matches no {what}{did_you_mean(glob, layers)}"


def _coverage(chosen: dict[str, Variant], kernels: Sequence[KernelInfo]) -> list[Prediction]:
    """Predict, by variant, a sparsity that the method cannot reach."""
    total = sum(kernel.size for kernel in kernels)
    predictions = []
    for name, variant in chosen.items():
        # After channel pruning the kernels are different.
        step = variant.sparsify[0] if len(variant.sparsify) == 1 else None
        if isinstance(step, Magnitude) and step.target_sparsity is not None:
            target, sparsities = (
                step.target_sparsity,
                {kernel: _kernel_sparsity(kernel, step) for kernel in kernels},
            )
        elif (
            (isinstance(step, OneShot) and step.pattern != "2:4")
            or isinstance(step, Rigl)
            or (isinstance(step, L1) and step.group in _WEIGHTS)
        ):
            target, sparsities = step.sparsity or 0.0, _redistributed(kernels, step)
        else:
            continue
        achieved = sum(kernel.size * share for kernel, share in sparsities.items()) / max(1, total)
        if not total or target - achieved <= REPORTED_GAP:
            continue
        left = sorted((k for k, share in sparsities.items() if not share), key=lambda k: -k.size)
        named = "; ".join(
            f"{k.name} ({k.size / total:.1%}): {k.reason or 'excluded'}" for k in left[:_NAMED]
        )
        fails = achieved < target / 2 and not step.allow_partial
        text = (
            f"{{variants}}: at most {achieved:.1%} of the requested {target:.0%} sparsity is "
            "reachable"
            + (f"; left dense: {named}" if named else "")
            + ("; fails without 'allow_partial: true'" if fails else "")
        )
        predictions.append(Prediction("coverage", text, (name,)))
    return predictions


def _redistributed(
    kernels: Sequence[KernelInfo], step: L1 | OneShot | Rigl
) -> dict[KernelInfo, float]:
    """Share of zeros of each kernel where sparse kernels make up for dense ones."""
    chosen = [k for k in kernels if not k.reason and not matches(step.exclude, k.names)]
    everything, size = sum(k.size for k in kernels), sum(k.size for k in chosen)
    share = (step.sparsity or 0.0) * everything / max(1, size)
    share = min(MAX_KERNEL_SPARSITY[step.method], share)
    return {kernel: share if kernel in chosen else 0.0 for kernel in kernels}


def _kernel_sparsity(kernel: KernelInfo, step: Magnitude) -> float:
    """Share of zeros of a kernel."""
    if step.excludes(kernel.names) or (kernel.reason and kernel.name not in step.layers):
        return 0.0
    share, _ = step.for_kernel(kernel.names)
    assert not isinstance(share, str)
    return share
