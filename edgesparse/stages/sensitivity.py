"""How much accuracy each layer costs when it is pruned alone: what `sparsity: auto` goes by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgesparse.methods.choosing.curves import LayerCurve, Proposal, Sensitivity
from edgesparse.spec.sparsify import Magnitude
from edgesparse.stages import untrained_model
from edgesparse.stages.base.artifacts import read_json, read_keras, write_json
from edgesparse.stages.base.stage import (
    DATA_LIBRARIES,
    TOOLKIT_LIBRARIES,
    StageContext,
    StageKind,
    with_location,
)


def key_inputs(
    data: Mapping[str, Any], step: Magnitude, levels: Sequence[float], chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the result depends on: of the step no sparsity and no fine-tuning, so that other
    numbers there measure nothing anew. `chosen` is what `pattern: auto` goes by."""
    own = step.model_dump(mode="json", include={"method", "pattern", "layers", "exclude"})
    return {"data": data, "sparsify": own, "levels": sorted(levels), **chosen}


def run(context: StageContext) -> None:
    """Leave accuracy by layer and level."""
    from edgesparse.methods.choosing import sensitivity

    step = Magnitude.model_validate({**context.stage.spec["sparsify"], "sparsity": 0.5})
    model = read_keras(context, "model")
    resolved = untrained_model.resolve(context, model, step)
    with with_location(context):
        found = sensitivity.measure(
            model,
            context.plan.dataset,
            resolved.spec,
            context.progress,
            context.stage.spec["levels"],
        )
    write_json(context.folder / "sensitivity.json", dataclasses.asdict(found))


def read(folder: Path) -> Sensitivity:
    """What `run` left."""
    found = read_json(folder / "sensitivity.json")
    layers = [LayerCurve(**{**one, "accuracy": tuple(one["accuracy"])}) for one in found["layers"]]
    return Sensitivity(found["accuracy"], tuple(found["levels"]), tuple(layers))


def propose(context: StageContext, max_accuracy_drop: float) -> tuple[Sensitivity, Proposal | None]:
    """What `run` left in `context.folder`, and a sparsity for each layer that keeps the accuracy
    without training. A command of its own asks for it; nothing is stored."""
    from edgesparse.methods.choosing import sensitivity

    metric = context.plan.recipe.metric
    found = dataclasses.replace(
        read(context.folder),
        metric=context.plan.recipe.metric_name,
        unit=metric.unit,
        direction=metric.direction,
    )
    model = read_keras(context, "model")
    return found, sensitivity.propose(model, context.plan.dataset, found, max_accuracy_drop)


KIND = StageKind("sensitivity", 2, (*DATA_LIBRARIES, *TOOLKIT_LIBRARIES), run)
