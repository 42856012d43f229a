"""How a plan's variants were made, read from what its stages left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgesparse.data.transforms import value_names
from edgesparse.graph.plan import Plan
from edgesparse.graph.store import Store
from edgesparse.measure.provenance import (
    InputAttribution,
    LayerSensitivity,
    LayerSparsity,
    Provenance,
    Training,
)
from edgesparse.spec.errors import EdgesparseError
from edgesparse.stages import sensitivity
from edgesparse.stages.base.artifacts import HISTORY, read_json
from edgesparse.stages.base.stage import Stage
from edgesparse.stages.samples import LABELS, TASK, TRANSFORM
from edgesparse.stages.sparsify import LAYERS
from edgesparse.tasks.evaluation import from_dict
from edgesparse.tflite.features import Features, features, strongest
from edgesparse.tflite.format.signature import read_signature

LOOKED_AT = 4096
"""Of more values than this no picture is kept."""
OUTPUTS = 12
_NAMED = 12
_COLOURS = 4


def provenance_of(plan: Plan, store: Store) -> Provenance:
    """What the stages that are done left; of those that failed there is nothing."""
    done = [stage for stage in plan.stages if store.has(stage.key)]
    return Provenance(
        trainings=[found for stage in done if (found := _training(stage, store)) is not None],
        layers=_layers(plan, store),
        sensitivities=[
            _sensitivity(stage, plan, store) for stage in done if stage.name == "sensitivity"
        ],
        inputs=_inputs(plan, store),
        class_names=_labels(plan, store),
    )


def _training(stage: Stage, store: Store) -> Training | None:
    path = store.path(stage.key) / HISTORY
    if not path.is_file():
        return None
    found = read_json(path)
    # Not what is said of the training as a whole.
    history = {n: v for n, v in found.items() if n.startswith("val_") or f"val_{n}" in found}
    if not history:
        return None
    return Training(
        label=stage.label,
        variants=list(stage.variants),
        history={name: [_finite(v) for v in values] for name, values in history.items()},
    )


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _layers(plan: Plan, store: Store) -> dict[str, list[LayerSparsity]]:
    found = {}
    for variant, convert in plan.converted.items():
        key = plan.stage(convert).inputs["model"]
        path = store.path(key) / LAYERS
        if store.has(key) and path.is_file():
            found[variant] = [
                LayerSparsity(
                    name=one["name"],
                    pattern=one["pattern"],
                    size=one["size"],
                    target=min(1.0, max(0.0, one["target"])),
                    achieved=one["achieved"],
                    note=one["note"],
                    size_before=one["size_before"],
                )
                for one in read_json(path)
            ]
    return found


def _sensitivity(stage: Stage, plan: Plan, store: Store) -> LayerSensitivity:
    found = sensitivity.read_sensitivity(store.path(stage.key))
    name, unit, sign = "accuracy", "%", 1
    if store.has(plan.samples):
        judging = from_dict(read_json(store.path(plan.samples) / TASK), store.root)
        name, unit = judging.metric_name, judging.metric.unit
        sign = 1 if judging.metric.direction == "maximize" else -1
    return LayerSensitivity(
        variants=list(stage.variants),
        metric=name,
        unit=unit,
        dense=sign * found.accuracy,
        levels=list(found.levels),
        layers={one.name: [sign * v for v in one.accuracy] for one in found.layers},
    )


def _labels(plan: Plan, store: Store) -> list[str]:
    known = store.has(plan.samples)
    return list(map(str, read_json(store.path(plan.samples) / LABELS))) if known else []


def _inputs(plan: Plan, store: Store) -> dict[str, list[InputAttribution]]:
    if not store.has(plan.samples):
        return {}
    folder = store.path(plan.samples)
    labels = _labels(plan, store)
    names = value_names(read_json(folder / TRANSFORM))
    found = {}
    for variant, key in plan.converted.items():
        path = store.path(key) / "dense.tflite"
        if not store.has(key) or not path.is_file():
            continue
        content = path.read_bytes()
        try:
            shapes = {spec.name: spec.shape for spec in read_signature(content, path.name).inputs}
            known = [one for one in features(content, path.name) if one.followed]
        except EdgesparseError:
            continue  # An operator that nobody knows: it is the user's own.
        if known:
            found[variant] = [_matters(one, shapes[one.name], labels, names) for one in known]
    return found


def _matters(
    one: Features,
    shape: Sequence[int],
    labels: Sequence[str],
    names: Mapping[str, Sequence[str]],
) -> InputAttribution:
    called = names.get(one.name) or names.get("x", ())
    named = strongest(one, labels, called, _NAMED)
    return InputAttribution(
        input=one.name,
        shape=[max(0, size) for size in shape[1:]],
        n_values=len(one.reach),
        n_connected=int(one.reach.sum()),
        attribution=_attribution(one, list(shape[1:]), list(named)),
        strongest=dict(list(named.items())[:OUTPUTS]),
    )


def _attribution(one: Features, shape: list[int], labels: Sequence[str]) -> dict[str, list[int]]:
    """Of a picture's values, output by output."""
    if one.strength is None or len(shape) not in (2, 3) or len(labels) > OUTPUTS:
        return {}
    colours = shape[2] if len(shape) == 3 else 1
    if len(one.reach) != math.prod(shape) or colours > _COLOURS:
        return {}
    if len(one.reach) // colours > LOOKED_AT:
        return {}
    own = one.strength.reshape(*shape[:2], colours, -1).sum(axis=2)
    own = own - own.mean(axis=-1, keepdims=True) if own.shape[-1] > 1 else own
    largest = float(np.abs(own).max()) or 1.0
    shares = np.round(99 * own / largest).astype(int).reshape(-1, own.shape[-1])
    return {label: shares[:, place].tolist() for place, label in enumerate(labels)}
