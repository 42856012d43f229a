"""What a user should know before anything is trained: which zeros will gain no time on a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgesparse.bench.rows import NOTICED
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
    covered = _coverage(plan, pipeline, outline.read_kernels(store.path(plan.outline)))
    lines = _lines(plan, pipeline, found, context.profiles)
    return [*covered, *(f"{name}: {line}" for line in lines)]


def _coverage(plan: Plan, pipeline: Pipeline, kernels: Sequence[outline.KernelInfo]) -> list[str]:
    """What magnitude pruning will not reach, by variant: said before an hour of training."""
    total = sum(kernel.size for kernel in kernels)
    lines = []
    for name in plan.converted:
        steps = pipeline.variants[name].sparsify
        # Behind channel pruning the model is another one.
        if not total or len(steps) != 1 or not isinstance(steps[0], Magnitude):
            continue
        step = steps[0]
        if isinstance(step.sparsity, str):
            continue
        asked = 0.5 if step.pattern == "2:4" else step.sparsity
        given = {kernel: _given(kernel, step, asked) for kernel in kernels}
        reached = sum(kernel.size * share for kernel, share in given.items()) / total
        if asked - reached <= NOTICED:
            continue
        left = sorted((k for k, share in given.items() if not share), key=lambda k: -k.size)
        named = "; ".join(
            f"{k.name} ({k.size / total:.1%}): {k.reason or 'excluded'}" for k in left[:3]
        )
        fails = reached < asked / 2 and not step.allow_partial
        lines.append(
            f"{name}: {asked:.0%} zeros are asked for, {reached:.1%} of the weights can be"
            + (f"; left dense: {named}" if named else "")
            + ("; it will fail without 'allow_partial: true'" if fails else "")
        )
    return lines


def _given(kernel: outline.KernelInfo, step: Magnitude, asked: float) -> float:
    """The share of zeros that a kernel gets."""
    if any(kernel.matches(glob) for glob in step.exclude):
        return 0.0
    given = [o.sparsity for glob, o in step.layers.items() if kernel.matches(glob)]
    own = [share for share in given if share is not None]
    if kernel.reason and kernel.name not in step.layers:
        return 0.0
    return own[-1] if own else asked


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
            one_scale = bool(plan.stage(plan.converted[name]).spec["one_scale"])
            scheme = variant.quantize.scheme
            for runtime, profile in profiles.items():
                for reason in patterns.refusals(graph, profile, scheme, one_scale=one_scale):
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
