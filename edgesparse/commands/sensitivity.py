"""Which layers of a pipeline's model bear sparsity, and a proposal that keeps the accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.commands.plan import check_variants, executor_for
from edgesparse.devices.agent.job import new_id
from edgesparse.graph import events
from edgesparse.graph.execution.scheduler import execute
from edgesparse.graph.fingerprints import inputs_of, library_versions
from edgesparse.graph.plan import sensitivity_plan
from edgesparse.methods.choosing.curves import Proposal, Sensitivity
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Pipeline
from edgesparse.spec.reading.load import Loaded, load_pipeline
from edgesparse.spec.safe.files import replace_json
from edgesparse.spec.sparsify import LEVELS, Magnitude


@dataclass(frozen=True)
class Found:
    """What was measured and what follows. `proposal` is None where nothing keeps the accuracy
    without training; `path` is where it was saved."""

    variant: str
    sensitivity: Sensitivity
    max_accuracy_drop: float
    proposal: Proposal | None
    path: Path

    @property
    def record(self) -> dict[str, Any]:
        """For JSON; `accuracy` is the metric that is named, as it is."""
        found, value = self.sensitivity, self.sensitivity.value
        proposal = self.proposal
        if proposal is not None:
            proposal = replace(proposal, accuracy=value(proposal.accuracy))
        layers = [replace(one, accuracy=tuple(map(value, one.accuracy))) for one in found.layers]
        return {
            "variant": self.variant,
            "max_accuracy_drop": self.max_accuracy_drop,
            **asdict(replace(found, accuracy=value(found.accuracy), layers=tuple(layers))),
            "proposal": None if proposal is None else asdict(proposal),
        }


def sensitivity(
    project: Resources,
    pipeline: str | Path | Loaded[Pipeline],
    device: DeviceName = "local",
    *,
    variant: str | None = None,
    max_accuracy_drop: float = 0.02,
    levels: Sequence[float] = LEVELS,
) -> Found:
    """Train what is not in the store, prune each layer alone, and save what comes out.

    Args:
        device: the target of `pattern: auto`.
        variant: whose model, pattern, layers and exclusions count; default the first that is
            pruned by magnitude, else unstructured zeros in the dense model.
        max_accuracy_drop: what the proposal may lose of the metric that counts, on validation
            data and before any fine-tuning.
        levels: sparsities to try.

    Raises:
        UsageError: there is no such variant, or it is not pruned by magnitude.
        EdgesparseError: training failed.
    """
    loaded = load_pipeline(pipeline)
    workspace, listener = project.workspace(loaded.spec.store), project.listener
    check_variants(loaded, [variant] if variant else None)
    name, place, step = _step(loaded.spec, variant)
    path = workspace.folder / "sensitivity" / f"{loaded.spec.name}-{name}.json"
    with project.target(device) as target:
        workers = project.workers(path.with_suffix(".log"))
        known = profiles(target, workspace)
        inputs = inputs_of(loaded)
        plan, stage = sensitivity_plan(
            loaded.spec, inputs.digests, library_versions(), known, name, place, step, levels
        )
        run, store = new_id("sensitivity"), workspace.store
        with executor_for(loaded, target, store, workers, run, known, inputs) as executor:
            errors = execute(plan.work, executor, listener)
        if stage.key in errors:
            raise EdgesparseError(errors[stage.key])
        listener(events.StageStarted("proposal", 1, 1))
        found, proposal = workers.call(
            "edgesparse.stages.sensitivity:propose",
            executor.context,
            executor.parts(stage, executor.store.path(stage.key)),
            max_accuracy_drop,
        )
        listener(events.StageDone("proposal", 1, 1))
    done = Found(name, found, max_accuracy_drop, proposal, path)
    replace_json(path, done.record)
    return done


def _step(pipeline: Pipeline, variant: str | None) -> tuple[str, int, Magnitude]:
    """The variant, and its step and place that is pruned by magnitude."""
    names = list(pipeline.variants) if variant is None else [variant]
    for name in names:
        for place, step in enumerate(pipeline.variants[name].sparsify):
            if isinstance(step, Magnitude):
                return name, place, step
    if variant is not None:
        raise UsageError(f"variant {variant} is not pruned by magnitude; name one that is")
    name = pipeline.baseline_variant
    return name, 0, Magnitude(method="magnitude", sparsity=LEVELS[-1])
