"""First rows of a run: what needs no training of its own, before the other variants are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from edgesparse.commands.fleet.target import Target
from edgesparse.commands.results.record import PROVISIONAL, RunRecord
from edgesparse.graph import events
from edgesparse.graph.plan import Plan
from edgesparse.graph.store import DamagedArtifact, Store
from edgesparse.measure.benchmark import Candidate, build_rows
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.pipeline import Pipeline
from edgesparse.stages.base.stage import Stage

CandidatesOf = Callable[[Plan, Mapping[str, str]], list[Candidate]]
"""Candidates of a part of the plan, with the errors of its stages."""

WORTH_EPOCHS = 5
"""Epochs of other variants from which on one does not wait for them to see first rows."""


def untrained_part(plan: Plan, pipeline: Pipeline, store: Store) -> Plan | None:
    """Restrict a plan to the variants that need no training besides the dense model's.

    Returns:
        The plan, or None where it has no such variants, or little else is to be trained.
    """
    reference = pipeline.variants[pipeline.baseline_variant]
    first = {
        name: key
        for name, key in plan.converted.items()
        if not (variant := pipeline.variants[name]).sparsify
        and not variant.quantize.qat
        and variant.shares_training_with(reference)
    }
    verified = {names: key for names, key in plan.verified.items() if names[0] in first}
    by_key = {stage.key: stage for stage in plan.stages}
    needed: set[str] = set()
    queue = [*first.values(), *verified.values(), plan.samples]
    while queue:
        key = queue.pop()
        if key in by_key and key not in needed:
            needed.add(key)
            queue += by_key[key].inputs.values()
    rest = [stage for stage in plan.work if not (stage.key in needed or store.has(stage.key))]
    if not first or sum(_epochs(stage) for stage in rest) < WORTH_EPOCHS:
        return None
    stages = tuple(stage for stage in plan.stages if stage.key in needed)
    return replace(plan, stages=stages, converted=first, verified=verified, training_groups=())


def _epochs(stage: Stage) -> int:
    """Epochs that a stage fine-tunes for."""
    spec = stage.spec.get(stage.name)
    return int(spec.get("epochs") or 0) if isinstance(spec, Mapping) else 0


def announce_first(record: RunRecord, device: str, listener: events.Listener) -> None:
    """Announce the first rows of a device; those of other devices were announced before."""
    results, rows = record.results(), record.first_rows.get(device)
    if rows:
        notes = [f"{device}: {PROVISIONAL}"]
        results = results.model_copy(update={"rows": rows, "notes": notes})
        listener(events.RowsReady(results))


def announce_ready(
    plan: Plan,
    record: RunRecord,
    target: Target,
    store: Store,
    listener: events.Listener,
    candidates_of: CandidatesOf,
) -> Callable[[Stage], None]:
    """Return a check to call after each stage, which announces the rows of a variant when its last
    file is verified; their times follow."""
    waiting = {
        variant: {
            key for (name, _), key in plan.verified.items() if name == variant
        } - {stage.key for stage in plan.stages if store.has(stage.key)}
        for variant in plan.converted
    }  # fmt: skip

    def check(stage: Stage) -> None:
        for variant, keys in waiting.items():
            if stage.key not in keys:
                continue
            keys.discard(stage.key)
            if keys:
                continue
            part = replace(plan, converted={variant: plan.converted[variant]})
            initial = record.initial
            about = (initial.pipeline, target.device.name, initial.baseline)
            try:
                rows = build_rows(*about, candidates_of(part, {}), None)
            except DamagedArtifact:
                raise  # Its stage must run again.
            except (EdgesparseError, OSError, ValueError, LookupError):
                continue  # What is wrong with a file is reported when it is measured.
            results = initial.model_copy(update={"rows": rows, "finished": False})
            listener(events.RowsReady(results))

    return check
