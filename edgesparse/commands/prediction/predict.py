"""Everything that is known of a plan before it is carried out."""

from __future__ import annotations

from edgesparse.commands.fleet.connect import Target
from edgesparse.commands.prediction import feasibility, speedup
from edgesparse.commands.prediction.outcomes import Foreseen
from edgesparse.graph import events
from edgesparse.graph.execution.executor import Executor
from edgesparse.graph.execution.scheduler import execute
from edgesparse.graph.plan import Plan
from edgesparse.spec.errors import UsageError
from edgesparse.stages import preflight, untrained_model


def advise(
    plan: Plan, executor: Executor, target: Target, listener: events.Listener
) -> list[Foreseen]:
    """What will fail, be partial or gain no time; makes what it looks at where that is not there.
    A preflight that itself fails is a note: the training may do better.

    Raises:
        UsageError: the pipeline's data, model or training do not work or fit; the message says
            where in the file and why.
    """
    context, store = executor.context, executor.store
    found: list[Foreseen] = []
    for one in plan.training_groups:
        error = error_of(plan, one.preflight, executor, listener)
        if error is not None:
            names = ", ".join(one.variants)
            found.append(Foreseen("note", f"preflight failed for {names}: {error}"))
        else:
            facts = preflight.read_facts(store.path(one.preflight))
            try:
                found += feasibility.check(context.loaded, one.variants, facts)
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
    found += speedup.half_precision(asked, context.profiles, f"{name}: ")
    for one in plan.training_groups:
        if one.untrained_model and error_of(plan, one.untrained_model, executor, listener) is None:
            graph = untrained_model.read(store.path(one.untrained_model))
            of = {v: context.pipeline.variants[v] for v in one.variants if v in plan.converted}
            found += speedup.lines(plan, of, graph, context.profiles, f"{name}: ")
    return list(dict.fromkeys(found))


def error_of(plan: Plan, key: str, executor: Executor, listener: events.Listener) -> str | None:
    """Why an artifact cannot be made; None where it is there."""
    store = executor.store
    if store.has(key) and store.ready(key) and store.wrong(key) is None:
        return None
    errors = execute([plan.stage(key)], executor, _without_failures(listener))
    return next(iter(errors.values()), None)


def _without_failures(listener: events.Listener) -> events.Listener:
    def tell(event: events.RunEvent) -> None:
        if not isinstance(event, events.StageFailed):
            listener(event)

    return tell
