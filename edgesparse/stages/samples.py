"""Writes the test samples that devices run in the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.devices.agent.sample_files import save_samples
from edgesparse.stages.base.artifacts import write_json
from edgesparse.stages.base.stage import DATA_LIBRARIES, KERAS_LIBRARIES, StageContext, StageKind
from edgesparse.tasks.model_tasks import to_dict

TARGETS, TASK = "targets.npz", "task.json"
LABELS, TRANSFORM = "labels.json", "transform.json"


def key_inputs(
    model: Mapping[str, Any], data: Mapping[str, Any], task: Mapping[str, Any], count: int
) -> dict[str, Any]:
    """Return what the result depends on: sources and digests of model and data, the pipeline's
    task, and the number of samples."""
    return {"model": model, "data": data, "task": task, "count": count}


def run(context: StageContext) -> None:
    """Write samples.npz with inputs, targets.npz with targets, task.json for their evaluation,
    labels.json, and transform.json, which converts raw files to inputs: null for an input without
    declared preprocessing."""
    from edgesparse import data
    from edgesparse.methods.training.recipe import evaluation_targets

    count, dataset = context.stage.spec["count"], context.plan.dataset
    recipe = context.plan.recipe
    x, y = data.arrays(dataset.test, max(1, count))
    x, y = ({name: v[:count] for name, v in arrays.items()} for arrays in (x, y))
    save_samples(context.folder / "samples.npz", {name: x[name] for name in recipe.inputs})
    np.savez(context.folder / TARGETS, **evaluation_targets(recipe, x, y))
    write_json(context.folder / TASK, to_dict(recipe))
    write_json(context.folder / LABELS, list(dataset.class_names))
    transforms = {name: dataset.transforms.get(name) for name in recipe.inputs}
    write_json(context.folder / TRANSFORM, transforms)


KIND = StageKind("samples", 7, (*DATA_LIBRARIES, *KERAS_LIBRARIES), run)
