"""Predictions of zeros without speed-up on a device, and of models that its runtimes refuse."""

from __future__ import annotations

from collections.abc import Mapping

from edgesparse.commands.prediction.outcomes import Prediction
from edgesparse.graph.plan import Plan
from edgesparse.spec.pipeline import Variant
from edgesparse.spec.sparsify import L1, Magnitude, OneShot, PatternChoice, Rigl, leaves_zeros
from edgesparse.stages import untrained_model
from edgesparse.tflite.runtimes import patterns
from edgesparse.tflite.runtimes.compatibility import Profile


def zeros(
    plan: Plan,
    variants: Mapping[str, Variant],
    graph: patterns.ModelGraph,
    profiles: Mapping[str, Profile],
    prefix: str,
) -> list[Prediction]:
    """Predict, by reason, zeros without speed-up and refusals of runtimes."""
    # Grouped by reason: ten layers with the same cause are one line.
    uses: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for name, variant in variants.items():
        expected, scheme = zeros_of(variant), variant.quantize.numbers
        if expected is None:
            continue
        sparsity, pattern, exclude = expected
        for runtime, profile in profiles.items():
            reasons = patterns.advice(graph, profile, scheme, sparsity, pattern, exclude)
            for reason, layers in reasons.items():
                uses.setdefault((reason, layers), []).append((name, runtime))
    predictions = _refusals(plan, variants, graph, profiles, prefix)
    for (reason, layers), users in uses.items():
        names = tuple(dict.fromkeys(name for name, _ in users))
        runtimes = tuple(dict.fromkeys(runtime for _, runtime in users))
        text = (
            f"no speed-up expected from zeros in {layers} layer{'s' * (layers > 1)} of "
            f"{{variants}} on {', '.join(runtimes)}: {reason}"
        )
        predictions.append(Prediction("speed", text, names, runtimes, prefix))
    return predictions


def half_precision(
    variants: Mapping[str, Variant], profiles: Mapping[str, Profile], prefix: str
) -> list[Prediction]:
    """Predict half precision that is not computed, and zeros beside it without effect."""
    half = {name: v for name, v in variants.items() if v.quantize.compute == "f16"}
    names_by_reason: dict[str, list[str]] = {}
    for runtime, profile in profiles.items():
        if half and not profile.half_precision.exists:
            names_by_reason.setdefault(profile.half_precision.why, []).append(runtime)
    predictions = []
    for why, runtimes in names_by_reason.items():
        text = f"no speed-up from half precision of {{variants}} on {', '.join(runtimes)}: {why}"
        predictions.append(Prediction("speed", text, tuple(half), tuple(runtimes), prefix))
    zeros = tuple(name for name, v in half.items() if v.has_zeros)
    if zeros:
        text = (
            "no speed-up from zeros of {variants}: they are stored densely, since half precision "
            "with sparse storage crashes or is slower"
        )
        predictions.append(Prediction("note", text, zeros, prefix=prefix))
    return predictions


def _refusals(
    plan: Plan,
    variants: Mapping[str, Variant],
    graph: patterns.ModelGraph,
    profiles: Mapping[str, Profile],
    prefix: str,
) -> list[Prediction]:
    """Predict refusals of variants without zeros; those with zeros have one scale per tensor."""
    names_by_reason: dict[tuple[str, str], list[str]] = {}
    for name, variant in variants.items():
        if not variant.has_zeros:
            one_scale = bool(plan.stage(plan.converted[name]).spec["one_scale"])
            scheme = variant.quantize.numbers
            for runtime, profile in profiles.items():
                for reason in patterns.refusals(graph, profile, scheme, one_scale=one_scale):
                    names_by_reason.setdefault((runtime, reason), []).append(name)
    predictions = []
    for (runtime, reason), names in names_by_reason.items():
        text = f"{runtime} will refuse {{variants}}: {reason}"
        predictions.append(Prediction("failure", text, tuple(names), (runtime,), prefix))
    return predictions


def zeros_of(variant: Variant) -> tuple[float, PatternChoice, tuple[str, ...]] | None:
    """Expected sparsity, pattern and excluded layers of a variant's zeros; None where it has none,
    or chooses the pattern itself."""
    if not variant.stores_sparse:
        return None
    step = next((s for s in reversed(variant.sparsify) if leaves_zeros(s)), None)
    if isinstance(step, L1):
        return step.sparsity or patterns.LIKELY_SPARSITY, step.pattern, tuple(step.exclude)
    if isinstance(step, Rigl | OneShot):
        return step.sparsity, step.pattern, tuple(step.exclude)
    if not isinstance(step, Magnitude):
        return patterns.LIKELY_SPARSITY, "unstructured", ()
    if step.pattern == "auto":  # It chooses a pattern that pays.
        return None
    return untrained_model.likely_sparsity(step), step.pattern, tuple(step.exclude)
