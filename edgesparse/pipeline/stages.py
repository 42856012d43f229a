"""What each stage calls. A stage reads its inputs from the store and fills a folder.

TensorFlow is imported only inside the stages that need it: a run whose stages are all cached never
pays for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgesparse.bench.results import ModelFile
from edgesparse.pipeline import sparsifying, verifying
from edgesparse.pipeline.context import Context, Progress, write_json
from edgesparse.pipeline.keras_files import fine_tune, read_keras, save_keras
from edgesparse.pipeline.plan import Stage
from edgesparse.spec.errors import EdgesparseError

if TYPE_CHECKING:
    import tensorflow as tf

    from edgesparse.tflite.inspect import ModelInfo

# Fine-tuning starts from trained weights: a smaller step than training's.
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
    save_keras(model, folder, history, training.accuracy(model, dataset))


def _quantize(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    from edgesparse.sparsity import quantize_aware, training

    quantize = context.variant(stage).quantize
    model = read_keras(context, stage.inputs["model"])
    train = fine_tune(context.pipeline.train, quantize, QUANTIZE_RATE)
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


def _read_quantized(context: Context, inputs: Mapping[str, str]) -> tf.keras.Model:
    model = read_keras(context, inputs["model"])
    if "quantize" not in inputs:
        return model
    from edgesparse.sparsity import quantize_aware

    quantized = quantize_aware.prepare(model)
    quantized.load_weights(context.store.path(inputs["quantize"]) / "quantized.weights.h5")
    return quantized


STAGES: dict[str, Callable[[Stage, Context, Path, Progress], None]] = {
    "samples": _samples,
    "outline": sparsifying.outline_stage,
    "train": _train,
    "sensitivity": sparsifying.sensitivity_stage,
    "sparsify": sparsifying.sparsify_stage,
    "quantize": _quantize,
    "convert": _convert,
    "encode": _encode,
    "compile": verifying.compile_stage,
    "verify": verifying.verify_stage,
}
