"""Trains the dense model from which every variant starts, once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgesparse.stages.base.artifacts import build_model, save_keras, write_json
from edgesparse.stages.base.stage import (
    DATA_LIBRARIES,
    KERAS_LIBRARIES,
    NOTES,
    StageContext,
    StageKind,
)


def key_inputs(model: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the result depends on: the model's source and digest, and what every training of
    the pipeline depends on, such as the data (`shared`)."""
    return {"model": model, **shared}


def run(context: StageContext) -> None:
    """Write the trained Keras model, its history and its metrics."""
    import tensorflow as tf

    from edgesparse.methods.training import class_counts, fitting, strategy

    train = context.plan.train
    # Before the model is built, whose initial weights are random.
    fitting.make_repeatable(train.seed, train.deterministic is not False)
    precision, scope = _precision(train.mixed_precision), strategy.scope(train)
    with context.dataset() as dataset, precision, scope:
        model = build_model(context, float32=False)
        extra = []
        if train.tensorboard:
            extra.append(tf.keras.callbacks.TensorBoard(context.folder / "tensorboard"))
        history = fitting.fit(model, dataset, train, context.progress, extra=extra)
        notes = [
            *fitting.training_notes(history),
            *class_counts.missing_classes(dataset, context.plan.recipe),
        ]
        write_json(context.folder / NOTES, notes)
        scores = fitting.scores(model, dataset, train)
        save_keras(model, context.folder, history, scores, as_built=True)


@contextmanager
def _precision(mixed: bool) -> Iterator[None]:
    """Let layers within the block compute in 16 bits; their weights keep 32."""
    import tensorflow as tf

    if mixed:
        tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")


KIND = StageKind("train", 3, (*DATA_LIBRARIES, *KERAS_LIBRARIES), run)
