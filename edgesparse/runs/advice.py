"""What a user should know before anything is trained: which zeros will gain no time on a target."""

from __future__ import annotations

from collections.abc import Mapping

from edgesparse.graph import progress as told
from edgesparse.graph.execute import Site, execute
from edgesparse.graph.plan import Plan
from edgesparse.runs.fleet.targets import Target
from edgesparse.spec.pipeline import Pipeline, Variant
from edgesparse.spec.sparsify import Magnitude, PatternChoice
from edgesparse.stages import outline
from edgesparse.tflite.runtimes import patterns
from edgesparse.tflite.runtimes.compatibility import Profile


def advise(plan: Plan, site: Site, target: Target, listener: told.Listener) -> list[str]:
    """One line for each reason for which zeros will not pay; makes the outline where it is not
    there. Nothing where the model cannot be built: training will say why."""
    if plan.outline is None:
        return []
    name = target.device.name
    context, store = site.context, site.store
    pipeline = context.pipeline
    if target.device.tpu is not None:
        zeros = [v for v in plan.converted if pipeline.variants[v].has_zeros]
        if not zeros:
            return []
        return [f"{name}: an Edge TPU gains nothing by zeros ({', '.join(zeros)}); channels would"]
    if not store.has(plan.outline) or store.wrong(plan.outline) is not None:
        execute([plan.stage(plan.outline)], site, _without_failures(listener))
        if not store.has(plan.outline):
            return []
    found = outline.read(store.path(plan.outline))
    return [f"{name}: {line}" for line in _lines(plan, pipeline, found, context.profiles)]


def _without_failures(listener: told.Listener) -> told.Listener:
    def tell(event: told.Told) -> None:
        if not isinstance(event, told.StageFailed):
            listener(event)

    return tell


def _lines(
    plan: Plan, pipeline: Pipeline, graph: patterns.Outline, profiles: Mapping[str, Profile]
) -> list[str]:
    # Grouped by reason: ten layers with one cause are one line.
    found: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for name in plan.converted:
        variant = pipeline.variants[name]
        zeros, scheme = _zeros(variant), variant.quantize.scheme
        if zeros is None:
            continue
        sparsity, pattern, exclude = zeros
        for runtime, profile in profiles.items():
            reasons = patterns.advice(graph, profile, scheme, sparsity, pattern, exclude)
            for reason, layers in reasons.items():
                found.setdefault((reason, layers), []).append((name, runtime))
    lines = _refusals(plan, pipeline, graph, profiles)
    for (reason, layers), where in found.items():
        variants = ", ".join(dict.fromkeys(name for name, _ in where))
        runtimes = ", ".join(dict.fromkeys(runtime for _, runtime in where))
        lines.append(
            f"zeros in {layers} layer{'s' * (layers > 1)} of {variants} gain no time with "
            f"{runtimes}: {reason}"
        )
    return lines


def _refusals(
    plan: Plan, pipeline: Pipeline, graph: patterns.Outline, profiles: Mapping[str, Profile]
) -> list[str]:
    """Of variants without zeros: those with zeros have one scale for all outputs."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in plan.converted:
        variant = pipeline.variants[name]
        if not variant.has_zeros:
            for runtime, profile in profiles.items():
                for reason in patterns.refusals(graph, profile, variant.quantize.scheme):
                    found.setdefault((runtime, reason), []).append(name)
    return [
        f"{runtime} will refuse {', '.join(names)}: {reason}"
        for (runtime, reason), names in found.items()
    ]


def _zeros(variant: Variant) -> tuple[float, PatternChoice, tuple[str, ...]] | None:
    """What is known of a variant's zeros: how many, in which pattern, and where not."""
    if not variant.has_zeros:
        return None
    step = next((s for s in reversed(variant.sparsify) if isinstance(s, Magnitude)), None)
    if step is None:
        return patterns.LIKELY_SPARSITY, "unstructured", ()
    if step.pattern == "auto":  # It takes what pays.
        return None
    return outline.likely_sparsity(step), step.pattern, tuple(step.exclude)
