"""What stages leave in their folders, and read from those of others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesparse.measure.rows import ModelFile
from edgesparse.spec.errors import EdgesparseError, cause_of
from edgesparse.stages.base.stage import StageContext
from edgesparse.tflite.format.inspect import inspect

if TYPE_CHECKING:
    import tensorflow as tf

METRICS, HISTORY = "metrics.json", "history.json"
_COMPARED = 4
"""Samples that a model answers before and after it is made flat."""
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
    """Leave a trained model, how its training went, and its metrics on the test split.

    Args:
        as_built: it has the layers that its builder gives it, so that its weights are enough: not
            every layer of a user's can be read back by Keras.
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
            f"the changed model cannot be saved: {cause_of(error)}; give your layers a "
            "get_config() that returns what their constructors take"
        ) from error


def is_as_built(context: StageContext, role: str) -> bool:
    """Whether an input has the layers that the builder gives it."""
    return (context.inputs[role] / _WEIGHTS).is_file()


def built(context: StageContext, *, float32: bool = True) -> tf.keras.Model:
    """The pipeline's model before any training, as a flat functional one; with `float32` also where
    its user has asked for 16-bit arithmetic."""
    from edgesparse import models

    model = models.build(context.pipeline.model, context.plan.loaded.folder)
    return flat(model, context, float32=float32)


def flat(model: tf.keras.Model, context: StageContext, *, float32: bool = True) -> tf.keras.Model:
    """A model as its user has built it as a flat functional one; where it leaves sizes open, they
    are the data's."""
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
    """What `save_keras` left; layers of the user's own are found in the user's file."""
    from edgesparse import models
    from edgesparse.methods.network import functional
    from edgesparse.models.files.reading import read

    if is_as_built(context, role):
        model = built(context)
        model.load_weights(context.inputs[role] / _WEIGHTS)
        return model
    own = models.own_objects(context.pipeline.model, context.plan.loaded.folder)
    model, _ = read(context.inputs[role] / _WHOLE, own, trusted=True)
    return functional.functional(model, context.plan.data.inputs, role)


def save_tflite(content: bytes, folder: Path, storage: str) -> None:
    """Leave a model file, and what results say of it."""
    (folder / f"{storage}.tflite").write_bytes(content)
    write_json(folder / "model.json", ModelFile.of(inspect(content)).model_dump())
