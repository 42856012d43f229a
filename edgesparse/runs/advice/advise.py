"""Everything that is known of a plan before it is carried out."""

from __future__ import annotations

from edgesparse.graph import progress as told
from edgesparse.graph.execution.execute import execute
from edgesparse.graph.execution.executor import Executor
from edgesparse.graph.plan import Plan
from edgesparse.runs.advice import failing, slow
from edgesparse.runs.advice.foreseen import Foreseen
from edgesparse.runs.fleet.targets import Target
from edgesparse.spec.errors import UsageError
from edgesparse.stages import outline, preflight


def advise(
    plan: Plan, executor: Executor, target: Target, listener: told.Listener
) -> list[Foreseen]:
    """What will fail, be partial or gain no time; makes what it looks at where that is not there.
    Nothing where the model cannot be built: training will say why.

    Raises:
        UsageError: nothing could be made; the message says where in the file and why.
    """
    context, store = executor.context, executor.store
    found: list[Foreseen] = []
    for one in plan.beginnings:
        if _made(plan, one.preflight, executor, listener):
            facts = preflight.read_facts(store.path(one.preflight))
            try:
                found += failing.check(context.loaded, one.variants, facts)
            except UsageError:
                # What was wrong may lie outside of what the key covers: it is looked at again.
                store.discard(one.preflight)
                raise
    name = target.device.name
    if target.device.tpu is not None:
        pipeline = context.pipeline
        zeros = tuple(v for v in plan.converted if pipeline.variants[v].has_zeros)
        text = "an Edge TPU gains nothing by zeros ({variants}); channels would"
        return [*found, Foreseen("note", text, zeros, prefix=f"{name}: ")] if zeros else found
    asked = {v: context.pipeline.variants[v] for v in plan.converted}
    found += slow.half_precision(asked, context.profiles, f"{name}: ")
    for one in plan.beginnings:
        if one.outline is not None and _made(plan, one.outline, executor, listener):
            graph = outline.read(store.path(one.outline))
            of = {v: context.pipeline.variants[v] for v in one.variants if v in plan.converted}
            found += slow.lines(plan, of, graph, context.profiles, f"{name}: ")
    return list(dict.fromkeys(found))


def _made(plan: Plan, key: str, executor: Executor, listener: told.Listener) -> bool:
    """Whether an artifact is there, after an attempt to make it."""
    store = executor.store
    if not store.has(key) or store.wrong(key) is not None:
        execute([plan.stage(key)], executor, _without_failures(listener))
    return store.has(key)


def _without_failures(listener: told.Listener) -> told.Listener:
    def tell(event: told.Told) -> None:
        if not isinstance(event, told.StageFailed):
            listener(event)

    return tell
