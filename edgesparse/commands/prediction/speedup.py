"""Which zeros will gain no time on a target, and what its runtimes will refuse."""

from __future__ import annotations

from collections.abc import Mapping

from edgesparse.commands.prediction.outcomes import Foreseen
from edgesparse.graph.plan import Plan
from edgesparse.spec.pipeline import Variant
from edgesparse.spec.sparsify import L1, Magnitude, OneShot, PatternChoice, Rigl, leaves_zeros
from edgesparse.stages import untrained_model
from edgesparse.tflite.runtimes import patterns
from edgesparse.tflite.runtimes.compatibility import Profile


def lines(
    plan: Plan,
    variants: Mapping[str, Variant],
    graph: patterns.ModelGraph,
    profiles: Mapping[str, Profile],
    prefix: str,
) -> list[Foreseen]:
    """One for each reason for which zeros will not pay, and for each refusal of a runtime."""
    # Grouped by reason: ten layers with one cause are one line.
    found: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for name, variant in variants.items():
        zeros, scheme = zeros_of(variant), variant.quantize.numbers
        if zeros is None:
            continue
        sparsity, pattern, exclude = zeros
        for runtime, profile in profiles.items():
            reasons = patterns.advice(graph, profile, scheme, sparsity, pattern, exclude)
            for reason, layers in reasons.items():
                found.setdefault((reason, layers), []).append((name, runtime))
    told = _refusals(plan, variants, graph, profiles, prefix)
    for (reason, layers), where in found.items():
        named = tuple(dict.fromkeys(name for name, _ in where))
        runtimes = tuple(dict.fromkeys(runtime for _, runtime in where))
        text = (
            f"zeros in {layers} layer{'s' * (layers > 1)} of {{variants}} gain no time with "
            f"{', '.join(runtimes)}: {reason}"
        )
        told.append(Foreseen("slow", text, named, runtimes, prefix))
    return told


def half_precision(
    variants: Mapping[str, Variant], profiles: Mapping[str, Profile], prefix: str
) -> list[Foreseen]:
    """Where half precision is asked for and not computed; that zeros gain nothing beside it."""
    half = {name: v for name, v in variants.items() if v.quantize.compute == "f16"}
    found: dict[str, list[str]] = {}
    for runtime, profile in profiles.items():
        if half and not profile.half_precision.exists:
            found.setdefault(profile.half_precision.why, []).append(runtime)
    told = []
    for why, runtimes in found.items():
        text = f"half precision of {{variants}} gains no time with {', '.join(runtimes)}: {why}"
        told.append(Foreseen("slow", text, tuple(half), tuple(runtimes), prefix))
    zeros = tuple(name for name, v in half.items() if v.has_zeros)
    if zeros:
        text = (
            "zeros of {variants} are stored densely and gain nothing: with sparse storage, half "
            "precision crashes or is slower"
        )
        told.append(Foreseen("note", text, zeros, prefix=prefix))
    return told


def _refusals(
    plan: Plan,
    variants: Mapping[str, Variant],
    graph: patterns.ModelGraph,
    profiles: Mapping[str, Profile],
    prefix: str,
) -> list[Foreseen]:
    """Of variants without zeros: those with zeros have one scale for all outputs."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, variant in variants.items():
        if not variant.has_zeros:
            one_scale = bool(plan.stage(plan.converted[name]).spec["one_scale"])
            scheme = variant.quantize.numbers
            for runtime, profile in profiles.items():
                for reason in patterns.refusals(graph, profile, scheme, one_scale=one_scale):
                    found.setdefault((runtime, reason), []).append(name)
    told = []
    for (runtime, reason), names in found.items():
        text = f"{runtime} will refuse {{variants}}: {reason}"
        told.append(Foreseen("fails", text, tuple(names), (runtime,), prefix))
    return told


def zeros_of(variant: Variant) -> tuple[float, PatternChoice, tuple[str, ...]] | None:
    """What is known of a variant's zeros: how many, in which pattern, and where not."""
    if not variant.stores_sparse:
        return None
    step = next((s for s in reversed(variant.sparsify) if leaves_zeros(s)), None)
    if isinstance(step, L1):
        blocks = step.group if step.group in ("block-1x4", "block-1x16") else "unstructured"
        return step.sparsity or patterns.LIKELY_SPARSITY, blocks, tuple(step.exclude)
    if isinstance(step, Rigl):
        return step.sparsity, "unstructured", tuple(step.exclude)
    if isinstance(step, OneShot):
        return step.sparsity, step.pattern, tuple(step.exclude)
    if not isinstance(step, Magnitude):
        return patterns.LIKELY_SPARSITY, "unstructured", ()
    if step.pattern == "auto":  # It takes what pays.
        return None
    return untrained_model.likely_sparsity(step), step.pattern, tuple(step.exclude)
