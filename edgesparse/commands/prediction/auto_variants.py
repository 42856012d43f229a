"""Which of the variants that `variants: auto` stands for are worth their training on a device."""

from __future__ import annotations

from collections.abc import Mapping

from edgesparse.commands.prediction import speedup
from edgesparse.graph.execution.executor import Executor
from edgesparse.graph.plan import Plan
from edgesparse.spec.pipeline import Variant
from edgesparse.spec.sparsify import leaves_zeros
from edgesparse.stages import preflight, untrained_model
from edgesparse.tflite.runtimes import patterns
from edgesparse.tflite.runtimes.compatibility import Profile

WORTH = 0.25
"""A share of the weights that is smaller than this, and whose zeros save time, is worth no
training."""


def left_out(plan: Plan, executor: Executor) -> dict[str, str]:
    """Why each variant that will gain nothing there will not, by name; after `advise`, which makes
    what is looked at."""
    context, store = executor.context, executor.store
    variants = {name: context.pipeline.variants[name] for name in plan.converted}
    found: dict[str, str] = {}
    for one in plan.training_groups:
        known = store.has(one.preflight)
        facts = preflight.read_facts(store.path(one.preflight)) if known else None
        if facts is not None and facts.rigid is not None:
            found |= dict.fromkeys(
                (n for n in one.variants if n in variants and _removes(variants[n])), facts.rigid
            )
        if one.untrained_model is None or not store.has(one.untrained_model):
            continue
        graph = untrained_model.read(store.path(one.untrained_model))
        for name in one.variants:
            why = _useless(variants[name], graph, context.profiles) if name in variants else None
            if why is not None:
                found.setdefault(name, why)
    return found


def _removes(variant: Variant) -> bool:
    return any(not leaves_zeros(step) for step in variant.sparsify)


def _useless(
    variant: Variant, graph: patterns.ModelGraph, profiles: Mapping[str, Profile]
) -> str | None:
    if variant.quantize.compute == "f16":
        whys = [profile.half_precision.why for profile in profiles.values()]
        return next(iter(whys), None) if all(whys) else None
    zeros = speedup.zeros_of(variant)
    if zeros is None:
        return None
    sparsity, pattern, exclude = zeros
    if pattern.startswith("block"):
        size = sum(constant.values.size for constant in graph.weights)
        own = sum(c.values.size for c in graph.weights if c.op == "FULLY_CONNECTED")
        if own < WORTH * size:
            return f"fully connected layers have {own / max(1, size):.0%} of its weights"
    scheme = variant.quantize.numbers
    gains = [
        patterns.gaining(graph, profile, scheme, sparsity, pattern, exclude)
        for profile in profiles.values()
    ]
    if gains and max(gains) < WORTH:
        return f"zeros in {1 - max(gains):.0%} of its weights gain no time there"
    return None
