"""Measures the accuracy after pruning single layers, for `sparsity: auto`."""

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
    """Return what the result depends on: of the step neither sparsity nor fine-tuning, whose
    changes do not need another measurement; `chosen` has the inputs of `pattern: auto`."""
    settings = step.model_dump(mode="json", include={"method", "pattern", "layers", "exclude"})
    return {"data": data, "sparsify": settings, "levels": sorted(levels), **chosen}


def run(context: StageContext) -> None:
    """Write the accuracy by layer and level."""
    from edgesparse.methods.choosing import sensitivity

    step = Magnitude.model_validate({**context.stage.spec["sparsify"], "sparsity": 0.5})
    model = read_keras(context, "model")
    resolved = untrained_model.resolve(context, model, step)
    with with_location(context):
        measured = sensitivity.measure(
            model,
            context.plan.dataset,
            resolved.spec,
            context.progress,
            context.stage.spec["levels"],
        )
    write_json(context.folder / "sensitivity.json", dataclasses.asdict(measured))


def read_sensitivity(folder: Path) -> Sensitivity:
    """Read the sensitivity that `run` wrote."""
    content = read_json(folder / "sensitivity.json")
    layers = [
        LayerCurve(**{**layer, "accuracy": tuple(layer["accuracy"])}) for layer in content["layers"]
    ]
    return Sensitivity(content["accuracy"], tuple(content["levels"]), tuple(layers))


def propose(context: StageContext, max_accuracy_drop: float) -> tuple[Sensitivity, Proposal | None]:
    """Return the sensitivity in `context.folder`, and a sparsity for each layer that keeps the
    accuracy without training; for the command `sensitivity`, which stores nothing."""
    from edgesparse.methods.choosing import sensitivity

    metric = context.plan.recipe.metric
    measured = dataclasses.replace(
        read_sensitivity(context.folder),
        metric=context.plan.recipe.metric_name,
        unit=metric.unit,
        direction=metric.direction,
    )
    model = read_keras(context, "model")
    return measured, sensitivity.propose(model, context.plan.dataset, measured, max_accuracy_drop)


KIND = StageKind("sensitivity", 3, (*DATA_LIBRARIES, *TOOLKIT_LIBRARIES), run)
