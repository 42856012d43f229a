"""Predictions about a plan before it is executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgesparse.commands.fleet.target import Target
from edgesparse.commands.prediction import delegate_speedup, feasibility, no_speedup
from edgesparse.commands.prediction.outcomes import Prediction
from edgesparse.delegate.choice import ChannelMultiple
from edgesparse.graph import events
from edgesparse.graph.execution.executor import Executor
from edgesparse.graph.execution.scheduler import execute
from edgesparse.graph.plan import Plan
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Variant
from edgesparse.spec.sparsify import Channels
from edgesparse.stages import preflight, untrained_model
from edgesparse.tflite.runtimes.compatibility import Profile


def predict(
    plan: Plan, executor: Executor, target: Target, listener: events.Listener
) -> list[Prediction]:
    """Predict failures, missing coverage, speed-ups from zeros and missing ones.

    Runs the preflight and untrained-model stages that the store lacks. A preflight that fails is a
    note: the training may still succeed.

    Raises:
        UsageError: the pipeline's data, model or training do not work or match; the message has
            the place in the file.
    """
    context, store = executor.context, executor.store
    predictions: list[Prediction] = []
    groups = plan.training_groups
    keys = [group.preflight for group in groups]
    if target.device.tpu is None:
        keys += [group.untrained_model for group in groups if group.untrained_model]
    errors = ensure_artifacts(plan, keys, executor, listener)
    for group in groups:
        error = errors.get(group.preflight)
        if error is not None:
            names = ", ".join(group.variants)
            predictions.append(Prediction("note", f"preflight failed for {names}: {error}"))
        else:
            facts = preflight.read_facts(store.path(group.preflight))
            try:
                predictions += feasibility.check(context.loaded, group.variants, facts)
            except UsageError:
                # The cause can lie outside of the key, such as in a file: check again next time.
                store.discard(group.preflight)
                raise
    prefix = f"{target.device.name}: "
    chosen = {v: context.pipeline.variants[v] for v in plan.converted}
    predictions += channel_widths(chosen, context.profiles, prefix)
    if target.device.tpu is not None:
        pipeline = context.pipeline
        zeros = tuple(v for v in plan.converted if pipeline.variants[v].has_zeros)
        text = "no speed-up from zeros on an Edge TPU ({variants}); channel pruning would help"
        if zeros:
            predictions.append(Prediction("note", text, zeros, prefix=prefix))
        return predictions
    predictions += no_speedup.half_precision(chosen, context.profiles, prefix)
    for group in groups:
        key = group.untrained_model
        if key and key not in errors:
            graph = untrained_model.read_graph(store.path(key))
            variants = {name: chosen[name] for name in group.variants if name in chosen}
            predictions += no_speedup.zeros(plan, variants, graph, context.profiles, prefix)
            predictions += delegate_speedup.predict_gains(variants, graph, context.profiles, prefix)
    return list(dict.fromkeys(predictions))


def channel_widths(
    variants: Mapping[str, Variant], profiles: Mapping[str, Profile], prefix: str
) -> list[Prediction]:
    """Say which widths channel pruning will leave with `round_to: auto`."""
    names = tuple(
        name
        for name, variant in variants.items()
        if any(isinstance(s, Channels) and s.round_to == "auto" for s in variant.sparsify)
    )
    multiple = next((p.channel_multiple for p in profiles.values()), ChannelMultiple())
    text = (
        f"{{variants}}: channels are left in multiples of {multiple.number}, {multiple.why} "
        "(round_to: auto)"
    )
    return [Prediction("task", text, names, prefix=prefix)] if names else []


def ensure_artifacts(
    plan: Plan, keys: Sequence[str], executor: Executor, listener: events.Listener
) -> dict[str, str]:
    """Make the artifacts that the store lacks; returns errors by key.

    They are made in parallel where there are several workers, each of which has then imported
    TensorFlow before the training takes all cores.
    """
    store = executor.store
    missing = [
        plan.stage(key)
        for key in dict.fromkeys(keys)
        if not (store.has(key) and store.ready(key) and store.damage(key) is None)
    ]
    return execute(missing, executor, _beside_the_run(listener)) if missing else {}


def _beside_the_run(listener: events.Listener) -> events.Listener:
    """Forward events of stages that do not count among the run's, and whose failures are notes."""

    def forward(event: events.RunEvent) -> None:
        if isinstance(event, events.StageStarted | events.StageDone):
            event = replace(event, number=1, total=1)
        if not isinstance(event, events.StageFailed):
            listener(event)

    return forward
