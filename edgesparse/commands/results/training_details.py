"""Collects how variants were trained, from the artifacts of stages: learning curves, sparsities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgesparse.data.transforms import value_names
from edgesparse.graph.plan import Plan
from edgesparse.graph.store import Store
from edgesparse.measure.training_details import (
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
from edgesparse.tasks.model_tasks import from_dict
from edgesparse.tflite.format.signature import read_signature
from edgesparse.tflite.input_attribution import Features, features, strongest

MAX_VALUES = 4096
"""Largest number of input values whose attribution is stored as an image."""
OUTPUTS = 12
_NAMED = 12
_CHANNELS = 4


def provenance_of(plan: Plan, store: Store) -> Provenance:
    """Collect the provenance from the stages that have finished."""
    done = [stage for stage in plan.stages if store.has(stage.key)]
    return Provenance(
        trainings=[training for stage in done if (training := _training(stage, store)) is not None],
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
    stored = read_json(path)
    # Only values by epoch.
    history = {n: v for n, v in stored.items() if n.startswith("val_") or f"val_{n}" in stored}
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
    layers = {}
    for variant, convert in plan.converted.items():
        key = plan.stage(convert).inputs["model"]
        path = store.path(key) / LAYERS
        if store.has(key) and path.is_file():
            layers[variant] = [
                LayerSparsity(
                    name=layer["name"],
                    pattern=layer["pattern"],
                    size=layer["size"],
                    target=min(1.0, max(0.0, layer["target"])),
                    achieved=layer["achieved"],
                    note=layer["note"],
                    size_before=layer["size_before"],
                )
                for layer in read_json(path)
            ]
    return layers


def _sensitivity(stage: Stage, plan: Plan, store: Store) -> LayerSensitivity:
    curves = sensitivity.read_sensitivity(store.path(stage.key))
    name, unit, sign = "accuracy", "%", 1
    if store.has(plan.samples):
        tasks = from_dict(read_json(store.path(plan.samples) / TASK), store.root)
        name, unit = tasks.metric_name, tasks.metric.unit
        sign = 1 if tasks.metric.direction == "maximize" else -1
    return LayerSensitivity(
        variants=list(stage.variants),
        metric=name,
        unit=unit,
        dense=sign * curves.accuracy,
        levels=list(curves.levels),
        layers={layer.name: [sign * v for v in layer.accuracy] for layer in curves.layers},
    )


def _labels(plan: Plan, store: Store) -> list[str]:
    has_samples = store.has(plan.samples)
    return list(map(str, read_json(store.path(plan.samples) / LABELS))) if has_samples else []


def _inputs(plan: Plan, store: Store) -> dict[str, list[InputAttribution]]:
    if not store.has(plan.samples):
        return {}
    folder = store.path(plan.samples)
    labels = _labels(plan, store)
    names = value_names(read_json(folder / TRANSFORM))
    inputs = {}
    for variant, key in plan.converted.items():
        path = store.path(key) / "dense.tflite"
        if not store.has(key) or not path.is_file():
            continue
        content = path.read_bytes()
        try:
            shapes = {spec.name: spec.shape for spec in read_signature(content, path.name).inputs}
            followed = [
                attribution for attribution in features(content, path.name) if attribution.followed
            ]
        except EdgesparseError:
            continue  # A custom operator.
        if followed:
            inputs[variant] = [
                _input_attribution(attribution, shapes[attribution.name], labels, names)
                for attribution in followed
            ]
    return inputs


def _input_attribution(
    features: Features,
    shape: Sequence[int],
    labels: Sequence[str],
    names: Mapping[str, Sequence[str]],
) -> InputAttribution:
    value_names = names.get(features.name) or names.get("x", ())
    strongest_values = strongest(features, labels, value_names, _NAMED)
    return InputAttribution(
        input=features.name,
        shape=[max(0, size) for size in shape[1:]],
        n_values=len(features.reach),
        n_connected=int(features.reach.sum()),
        attribution=_attribution(features, list(shape[1:]), list(strongest_values)),
        strongest=dict(list(strongest_values.items())[:OUTPUTS]),
    )


def _attribution(
    features: Features, shape: list[int], labels: Sequence[str]
) -> dict[str, list[int]]:
    """Attribution of an image's values by output, in hundredths of the largest."""
    if features.strength is None or len(shape) not in (2, 3) or len(labels) > OUTPUTS:
        return {}
    channels = shape[2] if len(shape) == 3 else 1
    if len(features.reach) != math.prod(shape) or channels > _CHANNELS:
        return {}
    if len(features.reach) // channels > MAX_VALUES:
        return {}
    strength = features.strength.reshape(*shape[:2], channels, -1).sum(axis=2)
    strength = (
        strength - strength.mean(axis=-1, keepdims=True) if strength.shape[-1] > 1 else strength
    )
    largest = float(np.abs(strength).max()) or 1.0
    shares = np.round(99 * strength / largest).astype(int).reshape(-1, strength.shape[-1])
    return {label: shares[:, index].tolist() for index, label in enumerate(labels)}
