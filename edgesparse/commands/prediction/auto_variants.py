"""Variants of `variants: auto` that are not worth their training on a device."""

from __future__ import annotations

from collections.abc import Mapping

from edgesparse.commands.prediction import no_speedup
from edgesparse.commands.prediction.outcomes import Prediction
from edgesparse.graph.execution.executor import Executor
from edgesparse.graph.plan import Plan
from edgesparse.spec.pipeline import Variant
from edgesparse.spec.sparsify import leaves_zeros
from edgesparse.spec.step import BLOCKS
from edgesparse.stages import preflight, untrained_model
from edgesparse.tflite.runtimes import patterns
from edgesparse.tflite.runtimes.compatibility import Profile

WORTH = 0.25
"""Smallest share of the weights whose zeros save time for which a training is worth it."""


def useless_variants(plan: Plan, executor: Executor) -> dict[str, str]:
    """Variants without benefit on a device, by name with the reason.

    Call it after `predict`, which runs the stages that it reads.
    """
    context, store = executor.context, executor.store
    variants = {name: context.pipeline.variants[name] for name in plan.converted}
    reasons: dict[str, str] = {}
    for group in plan.training_groups:
        is_checked = store.has(group.preflight)
        facts = preflight.read_facts(store.path(group.preflight)) if is_checked else None
        if facts is not None and facts.channels_error is not None:
            reasons |= dict.fromkeys(
                (n for n in group.variants if n in variants and _removes(variants[n])),
                facts.channels_error,
            )
        if group.untrained_model is None or not store.has(group.untrained_model):
            continue
        graph = untrained_model.read_graph(store.path(group.untrained_model))
        for name in group.variants:
            reason = (
                _reason_useless(variants[name], graph, context.profiles)
                if name in variants
                else None
            )
            if reason is not None:
                reasons.setdefault(name, reason)
    return reasons


def left_out(useless: Mapping[str, str], device: str) -> list[Prediction]:
    """Notes on variants that are left out, for `useless_variants`."""
    return [
        Prediction("note", f"{{variants}} left out: {reason}", (name,), prefix=f"{device}: ")
        for name, reason in useless.items()
    ]


def _removes(variant: Variant) -> bool:
    return any(not leaves_zeros(step) for step in variant.sparsify)


def _reason_useless(
    variant: Variant, graph: patterns.ModelGraph, profiles: Mapping[str, Profile]
) -> str | None:
    if variant.quantize.compute == "f16":
        reasons = [profile.half_precision.why for profile in profiles.values()]
        return next(iter(reasons), None) if all(reasons) else None
    zeros = no_speedup.zeros_of(variant)
    if zeros is None:
        return None
    (sparsity, pattern, exclude), scheme = zeros, variant.quantize.numbers
    # Blocks in convolutions are skipped by edgesparse's delegate alone, in int8.
    if pattern in BLOCKS and not (scheme == "int8" and pattern in patterns.DELEGATE_BLOCKS):
        size = sum(constant.values.size for constant in graph.weights)
        fully_connected = sum(c.values.size for c in graph.weights if c.op == "FULLY_CONNECTED")
        if fully_connected < WORTH * size:
            return (
                f"fully connected layers have {fully_connected / max(1, size):.0%} of its weights"
            )
    gains = [
        patterns.exploited_share(graph, profile, scheme, sparsity, pattern, exclude)
        for profile in profiles.values()
    ]
    if gains and max(gains) < WORTH:
        return f"no speed-up from zeros in {1 - max(gains):.0%} of its weights"
    return None
