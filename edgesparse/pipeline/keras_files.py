"""Keras models in the store, and the settings with which they are trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesparse.pipeline.context import Context, write_json
from edgesparse.spec import references
from edgesparse.spec.pipeline import Quantize, Train
from edgesparse.spec.sparsify import FineTune

if TYPE_CHECKING:
    import tensorflow as tf


def fine_tune(train: Train, spec: FineTune | Quantize, share: float) -> Train:
    """The training's settings with the epochs and the learning rate of a later step; `share` is the
    default of the latter, relative to the training's."""
    rate = spec.learning_rate or train.learning_rate * share
    return train.model_copy(
        update={"epochs": spec.epochs, "learning_rate": rate, "early_stopping": None}
    )


def save_keras(
    model: tf.keras.Model, folder: Path, history: Mapping[str, Any], accuracy: float
) -> None:
    model.save(folder / "model.keras")
    write_json(folder / "history.json", history)
    write_json(folder / "metrics.json", {"accuracy": accuracy})


def read_keras(context: Context, key: str) -> tf.keras.Model:
    """A model from the store; the user's file is imported first, for the layers it registers."""
    from edgesparse import models

    source = context.pipeline.model
    if source.ref is not None and ":" in source.ref:
        references.load(references.find("models", None, source.ref, context.loaded.folder))
    return models.read(context.store.path(key) / "model.keras")
