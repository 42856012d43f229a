"""Quantization-aware training of variants with `qat: true`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgesparse.spec.pipeline import Quantize
from edgesparse.spec.safe.text import listed
from edgesparse.stages.base.artifacts import HISTORY, METRICS, read_keras, with_teacher, write_json
from edgesparse.stages.base.stage import (
    DATA_LIBRARIES,
    NOTES,
    TOOLKIT_LIBRARIES,
    StageContext,
    StageKind,
)

if TYPE_CHECKING:
    import tensorflow as tf

    from edgesparse.methods.quantize_aware import Prepared

RATE = 1 / 10
"""Learning rate relative to training: fine-tuning starts from trained weights."""
_NAMED = 4
_WEIGHTS = "quantized.weights.h5"


def key_inputs(shared: Mapping[str, Any], quantize: Quantize) -> dict[str, Any]:
    """Return what the result depends on: data and training settings (`shared`) and those of QAT;
    not calibration, which comes later."""
    settings = quantize.model_dump(mode="json", include={"scheme", "epochs", "learning_rate"})
    if quantize.batch_size is not None:
        settings["batch_size"] = quantize.batch_size
    if quantize.distill is not None:
        settings["distill"] = quantize.distill.model_dump(mode="json")
    return {**shared, "quantize": settings}


def run(context: StageContext) -> None:
    """Write the weights of the model with fake-quantization around its layers."""
    from edgesparse.methods import quantize_aware
    from edgesparse.methods.training import fitting

    train = fitting.fine_tune(context.plan.train, context.variant.quantize, RATE)
    with context.dataset() as plain:
        dataset = with_teacher(context, plain, context.variant.quantize.distill)
        prepared, history = quantize_aware.quantize_aware(
            read_keras(context, "model"), dataset, train, context.progress
        )
        _leave(context, prepared, history, fitting.scores(prepared.model, dataset))


def _leave(
    context: StageContext,
    prepared: Prepared,
    history: Mapping[str, Any],
    scores: Mapping[str, float],
) -> None:
    from edgesparse.methods.training import fitting

    notes = fitting.training_notes(history, "fine-tuning")
    if prepared.left:
        left = listed(prepared.left, _NAMED)
        notes.append(f"not quantization-aware, with ranges from calibration: {left}")
    if notes:
        write_json(context.folder / NOTES, notes)
    # Keras cannot save tfmot's quantized layers; their weights fit the same preparation of the same
    # model.
    prepared.model.save_weights(context.folder / _WEIGHTS)
    write_json(context.folder / HISTORY, history)
    write_json(context.folder / METRICS, scores)


def read(context: StageContext) -> tf.keras.Model:
    """Load the Keras model to convert, with quantization-aware training where it is an input."""
    model = read_keras(context, "model")
    if "quantize" not in context.inputs:
        return model
    from edgesparse.methods import quantize_aware
    from edgesparse.methods.training import fitting

    prepared = quantize_aware.prepare(model)
    prepared.model.load_weights(context.inputs["quantize"] / _WEIGHTS)
    twin = quantize_aware.float_twin(prepared, model) if prepared.left else None
    if twin is None:
        return prepared.model
    samples = fitting.comparison_samples(twin, context.plan.dataset)
    quantize_aware.check(prepared.model, twin, samples, back=True)
    return twin


KIND = StageKind("quantize", 3, (*DATA_LIBRARIES, *TOOLKIT_LIBRARIES), run)
