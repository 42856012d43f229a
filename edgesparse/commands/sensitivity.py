"""The sensitivity command: the metric with each layer pruned alone, and a proposal by layer."""

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
from edgesparse.graph.digests import inputs_of
from edgesparse.graph.execution.scheduler import execute
from edgesparse.graph.plan import sensitivity_plan
from edgesparse.graph.versions import library_versions
from edgesparse.methods.choosing.curves import Proposal, Sensitivity
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Pipeline
from edgesparse.spec.reading.load import Loaded, load_pipeline
from edgesparse.spec.safe.files import replace_json
from edgesparse.spec.sparsify import LEVELS, Magnitude


@dataclass(frozen=True)
class LayerSensitivities:
    """Sensitivities of layers, saved in `path`; `proposal` is None where no sparsity keeps the
    metric without training."""

    variant: str
    sensitivity: Sensitivity
    max_accuracy_drop: float
    proposal: Proposal | None
    path: Path

    @property
    def record(self) -> dict[str, Any]:
        """A JSON record; `accuracy` is the value of the named metric."""
        sensitivity, value = self.sensitivity, self.sensitivity.value
        proposal = self.proposal
        if proposal is not None:
            proposal = replace(proposal, accuracy=value(proposal.accuracy))
        layers = [
            replace(layer, accuracy=tuple(map(value, layer.accuracy)))
            for layer in sensitivity.layers
        ]
        return {
            "variant": self.variant,
            "max_accuracy_drop": self.max_accuracy_drop,
            **asdict(
                replace(sensitivity, accuracy=value(sensitivity.accuracy), layers=tuple(layers))
            ),
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
) -> LayerSensitivities:
    """Prune each layer of a trained model alone, and save the metric that is left.

    Args:
        device: the target of `pattern: auto`.
        variant: the variant whose model, pattern, layers and exclusions to use; default: the first
            pruned by magnitude, else unstructured zeros in the dense model.
        max_accuracy_drop: largest drop of the primary metric by the proposal, on validation data
            and before fine-tuning.
        levels: sparsities to try.

    Raises:
        UsageError: the variant is unknown, or not pruned by magnitude.
        EdgesparseError: training failed.
    """
    loaded = load_pipeline(pipeline)
    workspace, listener = project.workspace(loaded.spec.store), project.listener
    check_variants(loaded, [variant] if variant else None)
    name, index, step = _step(loaded.spec, variant)
    path = workspace.folder / "sensitivity" / f"{loaded.spec.name}-{name}.json"
    with project.target(device) as target:
        workers = project.workers(path.with_suffix(".log"))
        runtime_profiles = profiles(target, workspace)
        inputs = inputs_of(loaded)
        plan, stage = sensitivity_plan(
            loaded.spec,
            inputs.digests,
            library_versions(),
            runtime_profiles,
            name,
            index,
            step,
            levels,
        )
        run, store = new_id("sensitivity"), workspace.store
        with executor_for(
            loaded, target, store, workers, run, runtime_profiles, inputs
        ) as executor:
            errors = execute(plan.work, executor, listener)
        if stage.key in errors:
            raise EdgesparseError(errors[stage.key])
        listener(events.StageStarted("proposal", 1, 1))
        curves, proposal = workers.call(
            "edgesparse.stages.sensitivity:propose",
            executor.context,
            executor.parts(stage, executor.store.path(stage.key)),
            max_accuracy_drop,
        )
        listener(events.StageDone("proposal", 1, 1))
    result = LayerSensitivities(name, curves, max_accuracy_drop, proposal, path)
    replace_json(path, result.record)
    return result


def _step(pipeline: Pipeline, variant: str | None) -> tuple[str, int, Magnitude]:
    """Find the variant's magnitude step: the variant's name, the step's index, the step."""
    names = list(pipeline.variants) if variant is None else [variant]
    for name in names:
        for index, step in enumerate(pipeline.variants[name].sparsify):
            if isinstance(step, Magnitude):
                return name, index, step
    if variant is not None:
        raise UsageError(f"variant {variant} is not pruned by magnitude; choose another --variant")
    name = pipeline.baseline_variant
    return name, 0, Magnitude(method="magnitude", sparsity=LEVELS[-1])
