"""The dense model that every variant starts from: trained once for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgesparse.spec.pipeline import Train
from edgesparse.stages.stage import DATA_LIBRARIES, KERAS_LIBRARIES, Kind, Work, save_keras


def covers(data: Mapping[str, Any], model: Mapping[str, Any], train: Train) -> dict[str, Any]:
    """What the result depends on: `data` and `model` are their sources and digests."""
    return {"data": data, "model": model, "train": train.model_dump(mode="json")}


def run(work: Work) -> None:
    """Leave the trained Keras model, its history and its accuracy."""
    from edgesparse import models
    from edgesparse.sparsity import training
    from edgesparse.sparsity.network import functional

    train, dataset = work.pipeline.train, work.context.dataset
    # Before the model is built: its initial weights are random, too.
    training.make_repeatable(train.seed)
    model = models.build(work.pipeline.model, work.context.loaded.folder)
    shape = work.context.dataset.input_shape
    model = functional.functional(model, lambda: shape, models.label(work.pipeline.model))
    training.check_fit(model, dataset)
    history = training.fit(model, dataset, train, work.progress)
    save_keras(model, work.folder, history, training.accuracy(model, dataset))


KIND = Kind("train", 1, (*DATA_LIBRARIES, *KERAS_LIBRARIES), run)
