"""What of a pipeline cannot be done to its model, or not in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from edgesparse.commands.prediction.outcomes import Foreseen
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
from edgesparse.spec.trained_methods import MAX_KERNEL_SPARSITY
from edgesparse.stages.preflight import Facts, KernelInfo

_NAMED = 3
_WEIGHTS = ("weight", "block-1x4", "block-1x16")
"""Groups of the penalty that leave zeros in kernels, and take away nothing else."""


def check(loaded: Loaded[Pipeline], variants: Sequence[str], facts: Facts) -> list[Foreseen]:
    """What will fail and what will be partial.

    Raises:
        UsageError: nothing can be made of the model, or a glob matches nothing in it.
    """
    document = loaded.document
    if facts.wrong is not None:
        # Messages of the user's own file say where they are from.
        place: Location = ("variants", variants[0], "model")
        place = place if place in document.values else ("model",)
        raise UsageError(f"{document.where(place)}: {facts.wrong}")
    chosen = {name: loaded.spec.variants[name] for name in variants}
    _check_training(loaded, chosen, facts)
    problems = [
        document.problem(place, said)
        for name, variant in chosen.items()
        for place, said in _unmatched(document, name, variant, facts)
    ]
    if problems:
        raise SpecError(problems)
    failing = {name: why for name, v in chosen.items() if (why := _why_it_fails(v, facts))}
    if failing and set(failing) == set(loaded.spec.variants):
        told = "; ".join(f"{name}: {why}" for name, why in failing.items())
        raise UsageError(f"{document.path}: no variant can be made: {told}")
    found = [Foreseen("said", said) for said in facts.said]
    found += [Foreseen("note", note) for note in facts.notes]
    for why in dict.fromkeys(failing.values()):
        names = tuple(name for name in failing if failing[name] == why)
        found.append(Foreseen("fails", f"{{variants}} will fail: {why}", names))
    left = tuple(n for n, v in chosen.items() if v.quantize.qat and n not in failing)
    if facts.unaware and left:
        named = listed(facts.unaware, _NAMED)
        text = f"{{variants}}: not quantization-aware, with ranges from calibration: {named}"
        found.append(Foreseen("partial", text, left))
    return [*found, *_coverage(chosen, facts.kernels)]


def _check_training(loaded: Loaded[Pipeline], chosen: Mapping[str, Variant], facts: Facts) -> None:
    """Raise UsageError where the model has a training of its own that would not take place."""
    train = loaded.spec.train
    later = any(_is_fine_tuned(variant) for variant in chosen.values())
    unused = (facts.unused if train.epochs else "") or (facts.unused_later if later else "")
    if not unused or train.ref is not None:
        return
    when = "training" if train.epochs and facts.unused else "fine-tuning"
    raise UsageError(
        f"{loaded.document.where(('model',))}: {unused} takes no part in {when}, where only the "
        "model's layers are kept; name a training loop, train: {ref: my_loop.py:train}, or train "
        "the model beforehand and say epochs: 0"
    )


def _is_fine_tuned(variant: Variant) -> bool:
    quantize = variant.quantize
    steps = any(getattr(step, "epochs", 0) for step in variant.sparsify)
    return steps or bool(quantize.qat and quantize.epochs)


def _why_it_fails(variant: Variant, facts: Facts) -> str | None:
    first = variant.sparsify[0] if variant.sparsify else None
    if first is not None and removes_channels(first) and facts.rigid is not None:
        return facts.rigid
    if isinstance(first, Magnitude) and not any(not k.reason for k in facts.kernels):
        named = any(kernel.name in first.layers for kernel in facts.kernels)
        if not named:
            reasons = "; ".join(f"{k.name}: {k.reason}" for k in facts.kernels[:_NAMED])
            return "there is no layer to prune" + (f" ({reasons})" if reasons else "")
    if variant.quantize.qat and facts.no_aware is not None:
        return f"quantization-aware training does not take this model: {facts.no_aware}"
    # Channels that are removed, or zeros, change no operator.
    return facts.no_scheme.get(variant.quantize.scheme)


def _unmatched(
    document: Document, name: str, variant: Variant, facts: Facts
) -> Iterator[tuple[Location, str]]:
    """Globs that match no layer: a slip of the pen, seen before an hour of training."""
    for i, step in enumerate(variant.sparsify):
        if isinstance(step, SparsifyReference | Activations):
            continue  # What these match is known when they run.
        place: Location = ("variants", name, "sparsify")
        place = (*place, i) if (*place, i) in document.values else place
        if removes_channels(step):
            known, what = set(facts.widths), "layer with channels"
        else:
            known = {x for k in facts.kernels for x in (k.name, k.layer)}
            what = "layer that can be pruned"
        places: list[tuple[Location, str]] = [
            *((("exclude", n), glob) for n, glob in enumerate(step.exclude)),
            *((("layers", glob), glob) for glob in getattr(step, "layers", ())),
        ]
        for where, glob in places:
            if not any(fnmatchcase(layer, glob) for layer in known):
                yield (*place, *where), f"{glob!r} matches no {what}{did_you_mean(glob, known)}"


def _coverage(chosen: dict[str, Variant], kernels: Sequence[KernelInfo]) -> list[Foreseen]:
    """What a method will not reach of the zeros that it is asked for, by variant."""
    total = sum(kernel.size for kernel in kernels)
    found = []
    for name, variant in chosen.items():
        # Behind channel pruning the model is another one.
        step = variant.sparsify[0] if len(variant.sparsify) == 1 else None
        if isinstance(step, Magnitude) and step.target_sparsity is not None:
            asked, given = (
                step.target_sparsity,
                {kernel: _given(kernel, step) for kernel in kernels},
            )
        elif (
            (isinstance(step, OneShot) and step.pattern != "2:4")
            or isinstance(step, Rigl)
            or (isinstance(step, L1) and step.group in _WEIGHTS)
        ):
            asked, given = step.sparsity or 0.0, _made_up(kernels, step)
        else:
            continue
        reached = sum(kernel.size * share for kernel, share in given.items()) / max(1, total)
        if not total or asked - reached <= REPORTED_GAP:
            continue
        left = sorted((k for k, share in given.items() if not share), key=lambda k: -k.size)
        named = "; ".join(
            f"{k.name} ({k.size / total:.1%}): {k.reason or 'excluded'}" for k in left[:_NAMED]
        )
        fails = reached < asked / 2 and not step.allow_partial
        text = (
            f"{{variants}}: {asked:.0%} zeros are asked for, {reached:.1%} of the weights "
            "can be"
            + (f"; left dense: {named}" if named else "")
            + ("; it will fail without 'allow_partial: true'" if fails else "")
        )
        found.append(Foreseen("partial", text, (name,)))
    return found


def _made_up(kernels: Sequence[KernelInfo], step: L1 | OneShot | Rigl) -> dict[KernelInfo, float]:
    """The share of zeros that each kernel gets where the others make up for what stays dense."""
    chosen = [k for k in kernels if not k.reason and not matches(step.exclude, k.names)]
    everything, size = sum(k.size for k in kernels), sum(k.size for k in chosen)
    share = (step.sparsity or 0.0) * everything / max(1, size)
    share = min(MAX_KERNEL_SPARSITY[step.method], share)
    return {kernel: share if kernel in chosen else 0.0 for kernel in kernels}


def _given(kernel: KernelInfo, step: Magnitude) -> float:
    """The share of zeros that a kernel gets."""
    if step.excludes(kernel.names) or (kernel.reason and kernel.name not in step.layers):
        return 0.0
    share, _ = step.for_kernel(kernel.names)
    assert not isinstance(share, str)
    return share
