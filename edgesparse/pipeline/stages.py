"""What each stage calls. A stage reads its inputs from the store and fills a folder.

TensorFlow is imported only inside the stages that need it: a run whose stages are all cached never
pays for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesparse.bench.results import ModelFile
from edgesparse.pipeline import verifying
from edgesparse.pipeline.context import Context, Progress, write_json
from edgesparse.pipeline.plan import Stage
from edgesparse.spec import references
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import FineTune, Magnitude, Quantize, Train

if TYPE_CHECKING:
    import tensorflow as tf

    from edgesparse.sparsity.report import Sparsified
    from edgesparse.tflite.inspect import ModelInfo

# Fine-tuning starts from trained weights: a smaller step than training's.
SPARSIFY_RATE = 1 / 3
QUANTIZE_RATE = 1 / 10


def run_stage(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    """Carry out one stage into `folder`. Raises EdgesparseError where it cannot be done."""
    STAGES[stage.name](stage, context, folder, progress)


def _samples(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    from edgesparse import data

    count = stage.spec["count"]
    x, y = data.arrays(context.dataset.test, max(1, count))
    np.savez(folder / "samples.npz", x=x[:count], y=y[:count])
    write_json(folder / "labels.json", list(context.dataset.class_names))


def _train(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    from edgesparse import models
    from edgesparse.sparsity import training

    train = context.pipeline.train
    dataset = context.dataset
    training.make_repeatable(train.seed)
    model = models.build(context.pipeline.model, context.loaded.folder)
    training.check_fit(model, dataset)
    history = training.fit(model, dataset, train, progress)
    _save_keras(model, folder, history, training.accuracy(model, dataset))


def _sparsify(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    from edgesparse.sparsity import training

    spec = context.variant(stage).sparsify
    assert spec is not None
    model = _read_keras(context, stage.inputs["model"])
    train = _fine_tune(context.pipeline.train, spec, SPARSIFY_RATE)
    try:
        done = _method(spec, model, train, context, progress)
    except UsageError as error:
        where = context.loaded.document.where(("variants", stage.variants[0], "sparsify"))
        raise UsageError(f"{where}: {error}") from error
    training.check_fit(done.model, context.dataset)
    accuracy = training.accuracy(done.model, context.dataset)
    _save_keras(done.model, folder, done.history, accuracy)
    layers = [
        {**dataclasses.asdict(layer), "achieved": round(layer.achieved, 6)} for layer in done.layers
    ]
    write_json(folder / "sparsity.json", layers)


def _method(
    spec: Any, model: tf.keras.Model, train: Train, context: Context, progress: Progress
) -> Sparsified:
    from edgesparse.sparsity import magnitude, report

    if isinstance(spec, Magnitude):
        return magnitude.magnitude(model, context.dataset, train, spec, progress)
    target = references.find("sparsity", None, spec.method, context.loaded.folder)
    given = {
        "model": model,
        "dataset": context.dataset,
        "train": train,
        "spec": spec,
        "progress": progress,
    }
    result = references.call(target, spec.args, given)
    return report.as_sparsified(result, target.label)


def _quantize(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    from edgesparse.sparsity import quantize_aware, training

    quantize = context.variant(stage).quantize
    model = _read_keras(context, stage.inputs["model"])
    train = _fine_tune(context.pipeline.train, quantize, QUANTIZE_RATE)
    quantized, history = quantize_aware.quantize_aware(model, context.dataset, train, progress)
    # The toolkit's quantized layers do not survive Keras' own format; their weights do, over the
    # same preparation of the same model.
    quantized.save_weights(folder / "quantized.weights.h5")
    accuracy = training.accuracy(quantized, context.dataset)
    write_json(folder / "history.json", history)
    write_json(folder / "metrics.json", {"accuracy": accuracy})


def _convert(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    from edgesparse import data
    from edgesparse.tflite import convert

    model = _read_quantized(context, stage.inputs)
    representative = data.representative(context.dataset, stage.spec["calibration_samples"])
    content = convert.convert(
        model, stage.spec["scheme"], representative, one_scale=stage.spec["one_scale"]
    )
    _save_tflite(content, folder, "dense")
    golden_x, _ = data.arrays(context.dataset.validation, stage.spec["golden"])
    golden_y = model(golden_x, training=False).numpy()
    np.savez(folder / "golden.npz", golden_x=golden_x, golden_y=golden_y)


def _encode(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    from edgesparse.tflite import storage

    content = (context.store.path(stage.inputs["convert"]) / "dense.tflite").read_bytes()
    profile = context.profiles[stage.spec["runtime"]["name"]]
    mode = stage.spec["storage"]
    encoded, decisions = storage.store(content, profile, mode)
    if mode == "sparse" and all(decision.form == "dense" for decision in decisions):
        reasons = "; ".join(sorted({decision.reason for decision in decisions}))
        raise EdgesparseError(f"storage: sparse is impossible: {reasons or 'it has no weights'}")
    _save_tflite(encoded if len(encoded) < len(content) else content, folder, "sparse")
    write_json(folder / "storage.json", [dataclasses.asdict(decision) for decision in decisions])


def _fine_tune(train: Train, spec: FineTune | Quantize, share: float) -> Train:
    rate = spec.learning_rate or train.learning_rate * share
    return train.model_copy(
        update={"epochs": spec.epochs, "learning_rate": rate, "early_stopping": None}
    )


def _save_keras(
    model: tf.keras.Model, folder: Path, history: Mapping[str, Any], accuracy: float
) -> None:
    model.save(folder / "model.keras")
    write_json(folder / "history.json", history)
    write_json(folder / "metrics.json", {"accuracy": accuracy})


def _save_tflite(content: bytes, folder: Path, storage: str) -> None:
    from edgesparse.tflite.inspect import inspect

    info = inspect(content)
    (folder / f"{storage}.tflite").write_bytes(content)
    write_json(folder / "model.json", model_file(info).model_dump())


def model_file(info: ModelInfo) -> ModelFile:
    """What results say of a .tflite file."""
    return ModelFile(
        sha256=info.sha256,
        bytes=info.bytes,
        bytes_gzip=info.bytes_gzip,
        parameters=info.parameters,
        zeros=info.zeros,
        sparsity=info.sparsity,
        storage=info.storage,
    )


def _read_keras(context: Context, key: str) -> tf.keras.Model:
    """A model from the store; the user's file is imported first, for the layers it registers."""
    from edgesparse import models

    source = context.pipeline.model
    if source.ref is not None and ":" in source.ref:
        references.load(references.find("models", None, source.ref, context.loaded.folder))
    return models.read(context.store.path(key) / "model.keras")


def _read_quantized(context: Context, inputs: Mapping[str, str]) -> tf.keras.Model:
    model = _read_keras(context, inputs["model"])
    if "quantize" not in inputs:
        return model
    from edgesparse.sparsity import quantize_aware

    quantized = quantize_aware.prepare(model)
    quantized.load_weights(context.store.path(inputs["quantize"]) / "quantized.weights.h5")
    return quantized


STAGES: dict[str, Callable[[Stage, Context, Path, Progress], None]] = {
    "samples": _samples,
    "train": _train,
    "sparsify": _sparsify,
    "quantize": _quantize,
    "convert": _convert,
    "encode": _encode,
    "compile": verifying.compile_stage,
    "verify": verifying.verify_stage,
}
