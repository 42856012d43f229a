"""Reading and writing of artifacts in the folders of stages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesparse.measure.rows import ModelFile
from edgesparse.spec.errors import EdgesparseError, cause_of
from edgesparse.spec.step import Distill
from edgesparse.stages.base.stage import StageContext
from edgesparse.tflite.format.inspect import inspect

if TYPE_CHECKING:
    import tensorflow as tf

    from edgesparse.data import Dataset

METRICS, HISTORY = "metrics.json", "history.json"
_COMPARED = 4
"""Samples on which a model's outputs are compared before and after flattening."""
_WEIGHTS, _WHOLE = "model.weights.h5", "model.keras"


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def save_keras(
    model: tf.keras.Model,
    folder: Path,
    history: Mapping[str, Any],
    scores: Mapping[str, float],
    *,
    as_built: bool,
) -> None:
    """Save a trained model, the history of its training, and its metrics on the test split.

    Args:
        as_built: it has the layers of its builder, so that its weights are sufficient: Keras cannot
            load every layer of a user.
    """
    if as_built:
        model.save_weights(folder / _WEIGHTS)
    else:
        _save_whole(model, folder / _WHOLE)
    write_json(folder / HISTORY, history)
    write_json(folder / METRICS, dict(scores))


def _save_whole(model: tf.keras.Model, path: Path) -> None:
    try:
        model.save(path)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise EdgesparseError(
            f"cannot save the changed model: {cause_of(error)}; give your layers a get_config() "
            "that returns the arguments of their constructors"
        ) from error


def is_as_built(context: StageContext, role: str) -> bool:
    """Return whether an input has the layers of its builder."""
    return (context.inputs[role] / _WEIGHTS).is_file()


def build_model(context: StageContext, *, float32: bool = True) -> tf.keras.Model:
    """Build the pipeline's untrained model as a flat functional one; `float32` overrides 16-bit
    arithmetic."""
    from edgesparse import models

    model = models.build(context.pipeline.model, context.plan.loaded.folder)
    return flatten(model, context, float32=float32)


def flatten(
    model: tf.keras.Model, context: StageContext, *, float32: bool = True
) -> tf.keras.Model:
    """Convert a user's model to a flat functional one; dynamic sizes become those of the data."""
    from edgesparse import data, models
    from edgesparse.methods.network import functional

    label, dataset = models.label(context.pipeline.model), context.plan.data
    return functional.functional(
        model,
        dataset.inputs,
        label,
        float32=float32,
        samples=lambda: data.representative(dataset, _COMPARED),
    )


def read_keras(context: StageContext, role: str) -> tf.keras.Model:
    """Load a model of `save_keras`; custom objects are imported from the user's file."""
    from edgesparse.methods.network import functional
    from edgesparse.models.files.custom_objects import custom_objects
    from edgesparse.models.files.reading import read

    if is_as_built(context, role):
        model = build_model(context)
        model.load_weights(context.inputs[role] / _WEIGHTS)
        return model
    objects = custom_objects(context.pipeline.model, context.plan.loaded.folder)
    model, _ = read(context.inputs[role] / _WHOLE, objects, trusted=True)
    return functional.functional(model, context.plan.data.inputs, role)


def with_teacher(context: StageContext, dataset: Dataset, settings: Distill | None) -> Dataset:
    """Return the data with the dense model as teacher of fine-tunings, where they distill."""
    if settings is None:
        return dataset
    from edgesparse.methods.training.distillation import Teacher

    return replace(dataset, teacher=Teacher(read_keras(context, "teacher"), settings))


def save_tflite(content: bytes, folder: Path, storage: str) -> None:
    """Save a model file and its facts for results."""
    (folder / f"{storage}.tflite").write_bytes(content)
    write_json(folder / "model.json", ModelFile.of(inspect(content)).model_dump())
