"""Which layers of a pipeline's model bear sparsity, and a proposal that keeps the accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesparse.pipeline import progress as told
from edgesparse.pipeline.context import replace_json
from edgesparse.pipeline.deploy import check_variants, context_for
from edgesparse.pipeline.execute import captured_output, execute
from edgesparse.pipeline.fingerprints import digests, library_versions
from edgesparse.pipeline.keras_files import read_keras
from edgesparse.pipeline.plan import sensitivity_plan
from edgesparse.pipeline.probes import profiles
from edgesparse.pipeline.sparsifying import read_sensitivity
from edgesparse.pipeline.targets import Target
from edgesparse.pipeline.workspace import Workspace
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.load import Loaded
from edgesparse.spec.pipeline import Pipeline
from edgesparse.spec.sparsify import LEVELS, Magnitude

if TYPE_CHECKING:
    from edgesparse.sparsity.sensitivity import Proposal, Sensitivity


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
        """For JSON."""
        return {
            "variant": self.variant,
            "max_accuracy_drop": self.max_accuracy_drop,
            **asdict(self.sensitivity),
            "proposal": None if self.proposal is None else asdict(self.proposal),
        }


def find_sensitivity(
    loaded: Loaded[Pipeline],
    target: Target,
    workspace: Workspace,
    listener: told.Listener,
    *,
    variant: str | None,
    max_accuracy_drop: float,
    levels: Sequence[float] = LEVELS,
) -> Found:
    """Train what is not in the store, prune each layer alone, and save what comes out.

    Args:
        variant: whose model, pattern, layers and exclusions count; default the first that is
            pruned by magnitude, else unstructured zeros in the dense model.

    Raises:
        UsageError: there is no such variant, or it is not pruned by magnitude.
        EdgesparseError: training failed.
    """
    check_variants(loaded, [variant] if variant else None)
    name, place, step = _step(loaded.spec, variant)
    known = profiles(target, workspace)
    plan, stage = sensitivity_plan(
        loaded.spec, digests(loaded), library_versions(), known, name, place, step, levels
    )
    context = context_for(loaded, target, workspace, "sensitivity", known)
    path = workspace.folder / "sensitivity" / f"{loaded.spec.name}-{name}.json"
    log = path.with_suffix(".log")
    errors = execute(plan.work, context, log, listener)
    if stage.key in errors:
        raise EdgesparseError(errors[stage.key])
    listener(told.StageStarted("proposal", 1, 1))
    with captured_output(log):
        from edgesparse.sparsity import sensitivity

        found = read_sensitivity(workspace.store.path(stage.key))
        model = read_keras(context, stage.inputs["model"])
        proposal = sensitivity.propose(model, context.dataset, found, max_accuracy_drop)
    listener(told.StageDone("proposal", 1, 1))
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
