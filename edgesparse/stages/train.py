"""The dense model that every variant starts from: trained once for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgesparse.spec.pipeline import Train
from edgesparse.stages.base.keeping import built, save_keras
from edgesparse.stages.base.stage import DATA_LIBRARIES, KERAS_LIBRARIES, Kind, Work


def covers(data: Mapping[str, Any], model: Mapping[str, Any], train: Train) -> dict[str, Any]:
    """What the result depends on: `data` and `model` are their sources and digests."""
    return {"data": data, "model": model, "train": train.model_dump(mode="json")}


def run(work: Work) -> None:
    """Leave the trained Keras model, its history and its accuracy."""
    from edgesparse.sparsity import training

    train, dataset = work.pipeline.train, work.context.dataset
    # Before the model is built: its initial weights are random, too.
    training.make_repeatable(train.seed)
    model = built(work)
    training.check_fit(model, dataset)
    history = training.fit(model, dataset, train, work.progress)
    accuracy = training.accuracy(model, dataset)
    save_keras(model, work.folder, history, accuracy, as_built=True)


KIND = Kind("train", 2, (*DATA_LIBRARIES, *KERAS_LIBRARIES), run)
