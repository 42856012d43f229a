"""What each stage calls. A stage reads its inputs from the store and fills a folder.

TensorFlow is imported only inside the stages that need it: a run whose stages are all cached never
pays for it.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesparse.bench.results import ModelFile
from edgesparse.devices.events import Check, Event, Failed
from edgesparse.devices.measure import Entry, check_only, run_job
from edgesparse.devices.transport import Transport
from edgesparse.pipeline.plan import Stage
from edgesparse.pipeline.store import Store
from edgesparse.spec import references
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.load import Loaded
from edgesparse.spec.pipeline import FineTune, Magnitude, Pipeline, Quantize, Train, Variant

if TYPE_CHECKING:
    import tensorflow as tf

    from edgesparse.data import Dataset
    from edgesparse.sparsity.report import Sparsified
    from edgesparse.tflite.inspect import ModelInfo
    from edgesparse.tflite.verify import Limits

Progress = Callable[[float, str], None]

# Fine-tuning starts from trained weights: a smaller step than training's.
SPARSIFY_RATE = 1 / 3
QUANTIZE_RATE = 1 / 10


@dataclass(frozen=True)
class Context:
    """What stages share. `transport` reaches the device whose runtimes verify the models.

    `host` reaches this machine, when that is another one; `host_runtimes` are its own.
    """

    loaded: Loaded[Pipeline]
    store: Store
    transport: Transport
    run: str
    host: Transport | None = None
    host_runtimes: tuple[str, ...] = ()
    golden_samples: int | None = None
    """How many golden samples a slow device answers; default: all."""
    stop: threading.Event | None = None

    @property
    def pipeline(self) -> Pipeline:
        return self.loaded.spec

    @cached_property
    def dataset(self) -> Dataset:
        from edgesparse import data

        return data.load(self.pipeline.data, self.loaded.folder)

    def variant(self, stage: Stage) -> Variant:
        return self.pipeline.variants[stage.variants[0]]


def run_stage(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    """Carry out one stage into `folder`. Raises EdgesparseError where it cannot be done."""
    STAGES[stage.name](stage, context, folder, progress)


def _samples(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    from edgesparse import data

    count = stage.spec["count"]
    x, y = data.arrays(context.dataset.test, max(1, count))
    np.savez(folder / "samples.npz", x=x[:count], y=y[:count])
    _write_json(folder / "labels.json", list(context.dataset.class_names))


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
    _write_json(folder / "sparsity.json", layers)


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
    _write_json(folder / "history.json", history)
    _write_json(folder / "metrics.json", {"accuracy": accuracy})


def _convert(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    from edgesparse import data

    model = _read_quantized(context, stage.inputs)
    content = _converted(context, stage, model, sparse=False)
    _save_tflite(content, folder, "dense")
    golden_x, _ = data.arrays(context.dataset.validation, stage.spec["golden"])
    golden_y = model(golden_x, training=False).numpy()
    np.savez(folder / "golden.npz", golden_x=golden_x, golden_y=golden_y)


def _encode(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    model = _read_quantized(context, stage.inputs)
    _save_tflite(_converted(context, stage, model, sparse=True), folder, "sparse")


def _converted(context: Context, stage: Stage, model: tf.keras.Model, *, sparse: bool) -> bytes:
    from edgesparse import data
    from edgesparse.tflite import convert

    representative = data.representative(context.dataset, stage.spec["calibration_samples"])
    return convert.convert(model, stage.spec["scheme"], representative, sparse=sparse)


def _verify(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    """Choose the storage: sparse where this runtime takes it and answers right, else dense."""
    from edgesparse.tflite import verify

    variant = context.variant(stage)
    limit = verify.limits(variant.quantize, context.pipeline.verify)
    paths = _stored_forms(stage, context, variant)
    files = {storage: read_json(path.with_name("model.json")) for storage, path in paths.items()}
    _require_zeros(stage, context, files)
    runtime = stage.spec["runtime"]["name"]
    entries = [
        replace(
            _entry(stage, context, storage, path, runtime, limit),
            samples=None if context.host else _samples_of(stage, context),
            golden_samples=context.golden_samples,
        )
        for storage, path in paths.items()
    ]
    refused: dict[str, str] = {}
    checks: dict[str, Check] = {}
    for event in _checked(stage, context, context.transport, entries):
        if isinstance(event, Failed):
            refused[event.entry] = event.error
        elif isinstance(event, Check):
            wrong = verify.disagreement(event.agreement or 0.0, limit)
            if wrong:
                refused[event.entry] = wrong
            else:
                checks[event.entry] = event
    chosen = next((storage for storage in paths if storage in checks), None)
    if chosen is None:
        reason = "; ".join(f"{storage}: {error}" for storage, error in refused.items())
        raise EdgesparseError(f"{runtime} cannot run it: {reason}")
    check = checks[chosen]
    accuracy, samples = check.accuracy, check.samples or 0
    if context.host is not None:
        accuracy, samples = _host_accuracy(stage, context, chosen, paths[chosen], limit)
    notes = []
    if chosen == "dense" and "sparse" in refused:
        notes.append(f"stored dense, because {runtime} refuses it sparse: {refused['sparse']}")
    _write_json(
        folder / "verify.json",
        {
            "storage": chosen,
            "path": paths[chosen].parent.name + "/" + paths[chosen].name,
            "model": files[chosen],
            "agreement": check.agreement,
            "accuracy": accuracy,
            "samples": samples,
            "notes": notes,
        },
    )


def _entry(
    stage: Stage, context: Context, name: str, path: Path, runtime: str, limit: Limits
) -> Entry:
    golden = context.store.path(stage.inputs["convert"]) / "golden.npz"
    return Entry(
        name, path, runtime, stage.spec["delegate"], 1, golden=golden, tolerance=limit.tolerance
    )


def _samples_of(stage: Stage, context: Context) -> Path:
    return context.store.path(stage.inputs["samples"]) / "samples.npz"


def _checked(
    stage: Stage, context: Context, transport: Transport, entries: Sequence[Entry]
) -> list[Event]:
    timeout_seconds = context.pipeline.benchmark.timeout_seconds
    job = check_only(entries, f"{context.run}-{stage.key[:12]}", timeout_seconds)
    return run_job(transport, job, stop=context.stop)


def _host_accuracy(
    stage: Stage, context: Context, name: str, path: Path, limit: Limits
) -> tuple[float | None, int]:
    """Accuracy of a file that another machine runs, and over how many samples, on this one.

    By the same runtime where this machine has it; None where no runtime here takes the file.
    """
    assert context.host is not None
    wanted = stage.spec["runtime"]["name"]
    for runtime in sorted(context.host_runtimes, key=lambda own: own != wanted):
        entry = replace(
            _entry(stage, context, name, path, runtime, limit),
            samples=_samples_of(stage, context),
            delegate="xnnpack",
        )
        for event in _checked(stage, context, context.host, [entry]):
            if isinstance(event, Check) and event.accuracy is not None:
                return event.accuracy, event.samples or 0
    return None, 0


def _stored_forms(stage: Stage, context: Context, variant: Variant) -> dict[str, Path]:
    """The files to choose from, the preferred first."""
    paths = {"dense": context.store.path(stage.inputs["convert"]) / "dense.tflite"}
    if "encode" in stage.inputs:
        sparse = context.store.path(stage.inputs["encode"]) / "sparse.tflite"
        return {"sparse": sparse} if variant.storage == "sparse" else {"sparse": sparse, **paths}
    return paths


def _require_zeros(stage: Stage, context: Context, files: Mapping[str, Any]) -> None:
    from edgesparse.tflite import verify

    if "sparsify" not in stage.inputs:
        return
    layers = read_json(context.store.path(stage.inputs["sparsify"]) / "sparsity.json")
    for file in files.values():
        lost = verify.lost_zeros(file["zeros"], sum(layer["zeros"] for layer in layers))
        if lost:
            raise EdgesparseError(lost)


def _fine_tune(train: Train, spec: FineTune | Quantize, share: float) -> Train:
    rate = spec.learning_rate or train.learning_rate * share
    return train.model_copy(
        update={"epochs": spec.epochs, "learning_rate": rate, "early_stopping": None}
    )


def _save_keras(
    model: tf.keras.Model, folder: Path, history: Mapping[str, Any], accuracy: float
) -> None:
    model.save(folder / "model.keras")
    _write_json(folder / "history.json", history)
    _write_json(folder / "metrics.json", {"accuracy": accuracy})


def _save_tflite(content: bytes, folder: Path, storage: str) -> None:
    from edgesparse.tflite.inspect import inspect

    info = inspect(content)
    (folder / f"{storage}.tflite").write_bytes(content)
    _write_json(folder / "model.json", model_file(info).model_dump())


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


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


STAGES: dict[str, Callable[[Stage, Context, Path, Progress], None]] = {
    "samples": _samples,
    "train": _train,
    "sparsify": _sparsify,
    "quantize": _quantize,
    "convert": _convert,
    "encode": _encode,
    "verify": _verify,
}
