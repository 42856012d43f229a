"""Test samples, on the side of the benchmark: what devices are asked to answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesparse.devices.agent.samples import save_samples
from edgesparse.stages.base.artifacts import write_json
from edgesparse.stages.base.stage import DATA_LIBRARIES, KERAS_LIBRARIES, Kind, Work
from edgesparse.tasks.evaluation import plain

TARGETS, TASK = "targets.npz", "task.json"
LABELS, TRANSFORM = "labels.json", "transform.json"


def covers(
    model: Mapping[str, Any], data: Mapping[str, Any], task: Mapping[str, Any], count: int
) -> dict[str, Any]:
    """What the result depends on: `model` and `data` are their sources and digests, `task` what the
    pipeline says of it."""
    return {"model": model, "data": data, "task": task, "count": count}


def run(work: Work) -> None:
    """Leave samples.npz with inputs, targets.npz with what should come out, task.json with how that
    is judged, labels.json, and transform.json, how raw files become inputs."""
    from edgesparse import data
    from edgesparse.methods.training.recipe import judged_targets

    count, dataset = work.stage.spec["count"], work.context.dataset
    recipe = work.context.recipe
    x, y = data.arrays(dataset.test, max(1, count))
    x, y = ({name: v[:count] for name, v in given.items()} for given in (x, y))
    save_samples(work.folder / "samples.npz", {name: x[name] for name in recipe.inputs})
    np.savez(work.folder / TARGETS, **judged_targets(recipe, x, y))
    write_json(work.folder / TASK, plain(recipe))
    write_json(work.folder / LABELS, list(dataset.class_names))
    write_json(work.folder / TRANSFORM, dict(dataset.transforms))


KIND = Kind("samples", 4, (*DATA_LIBRARIES, *KERAS_LIBRARIES), run)
