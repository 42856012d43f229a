"""The stages that take weights or channels away, and those that find out which."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from edgesparse.bench.job import EXACT, QUICK
from edgesparse.devices.events import Failed
from edgesparse.devices.measure import Entry, Job, Settings, round_medians, run_job
from edgesparse.pipeline.context import Context, Progress, read_json, write_json
from edgesparse.pipeline.keras_files import fine_tune, read_keras, save_keras
from edgesparse.pipeline.plan import Stage
from edgesparse.spec import references
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Channels, LayerChoice, Magnitude, Sparsify

if TYPE_CHECKING:
    import tensorflow as tf

    from edgesparse.sparsity.auto import Resolved
    from edgesparse.sparsity.report import LayerSparsity, Sparsified
    from edgesparse.sparsity.sensitivity import Sensitivity
    from edgesparse.tflite.patterns import Outline

# Fine-tuning starts from trained weights: a smaller step than training's.
SPARSIFY_RATE = 1 / 3
NOTES = "notes.json"


def outline_stage(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    """The untrained model as an f32 file: its graph and shapes are what they will be."""
    import numpy as np

    from edgesparse import models
    from edgesparse.tflite import convert

    model = models.build(context.pipeline.model, context.loaded.folder)
    nothing = np.zeros((0, 1), np.float32)
    (folder / "outline.tflite").write_bytes(convert.convert(model, "f32", nothing))


def read_outline(context: Context, key: str) -> Outline:
    """What `outline_stage` left."""
    from edgesparse.tflite import patterns

    return patterns.read_outline((context.store.path(key) / "outline.tflite").read_bytes())


def sensitivity_stage(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    """Accuracy with each layer pruned alone."""
    from edgesparse.sparsity import sensitivity

    step = Magnitude.model_validate({**stage.spec["sparsify"], "sparsity": 0.5})
    model = read_keras(context, stage.inputs["model"])
    resolved = _resolved(stage, context, model, step)
    with _placed(stage, context):
        found = sensitivity.measure(
            model, context.dataset, resolved.spec, progress, stage.spec["levels"]
        )
    write_json(folder / "sensitivity.json", dataclasses.asdict(found))


def read_sensitivity(folder: Path) -> Sensitivity:
    """What `sensitivity_stage` left."""
    from edgesparse.sparsity.sensitivity import LayerCurve, Sensitivity

    found = read_json(folder / "sensitivity.json")
    layers = [LayerCurve(**{**one, "accuracy": tuple(one["accuracy"])}) for one in found["layers"]]
    return Sensitivity(found["accuracy"], tuple(found["levels"]), tuple(layers))


def sparsify_stage(stage: Stage, context: Context, folder: Path, progress: Progress) -> None:
    """One step of a variant's `sparsify`."""
    from edgesparse.sparsity import training

    spec: Any = TypeAdapter(Sparsify).validate_python(stage.spec["sparsify"])
    model = read_keras(context, stage.inputs["model"])
    train = fine_tune(context.pipeline.train, spec, SPARSIFY_RATE)
    with _placed(stage, context):
        done = _carried_out(stage, context, model, spec, train, progress)
    training.check_fit(done.model, context.dataset)
    accuracy = training.accuracy(done.model, context.dataset)
    save_keras(done.model, folder, done.history, accuracy)
    layers = [
        {**dataclasses.asdict(layer), "achieved": round(layer.achieved, 6)} for layer in done.layers
    ]
    write_json(folder / "sparsity.json", layers)
    notes = [*notes_of(context, stage.inputs["model"]), *done.notes, *_misfits(done.layers)]
    write_json(folder / NOTES, notes)


def _misfits(layers: Sequence[LayerSparsity]) -> list[str]:
    """Where a pattern could not be laid over a layer; one line for each reason."""
    found: dict[str, list[str]] = {}
    for layer in layers:
        if layer.note and layer.pattern != "channels":
            found.setdefault(layer.note, []).append(layer.name)
    return [f"{', '.join(names)}: {note}" for note, names in found.items()]


def notes_of(context: Context, key: str) -> list[str]:
    """What the steps so far have to say under the table."""
    path = context.store.path(key) / NOTES
    return list(read_json(path)) if path.exists() else []


@contextmanager
def _placed(stage: Stage, context: Context) -> Iterator[None]:
    """Says where in the file a mistake is that shows only now."""
    try:
        yield
    except UsageError as error:
        where = context.loaded.document.where(("variants", stage.variants[0], "sparsify"))
        raise UsageError(f"{where}: {error}") from error


def _carried_out(
    stage: Stage,
    context: Context,
    model: tf.keras.Model,
    spec: Any,
    train: Train,
    progress: Progress,
) -> Sparsified:
    if isinstance(spec, Channels):
        from edgesparse.sparsity import channels

        measure = _latencies(stage, context) if spec.latency is not None else None
        return channels.channels(model, context.dataset, train, spec, progress, measure)
    if isinstance(spec, Magnitude):
        from edgesparse.sparsity import auto

        found = None
        if "sensitivity" in stage.inputs:
            found = read_sensitivity(context.store.path(stage.inputs["sensitivity"]))
        resolved = _resolved(stage, context, model, spec)
        return auto.prune(model, context.dataset, train, resolved, progress, found)
    from edgesparse.sparsity import report

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


def _resolved(stage: Stage, context: Context, model: tf.keras.Model, spec: Magnitude) -> Resolved:
    from edgesparse.sparsity import auto

    return auto.resolve(model, spec, _choices(stage, context, spec))


def _choices(stage: Stage, context: Context, spec: Magnitude) -> Mapping[str, LayerChoice]:
    from edgesparse.tflite import patterns
    from edgesparse.tflite.compatibility import SparsePath

    if "outline" not in stage.inputs:
        return {}
    known = stage.spec["exploits"]
    found = patterns.Exploits(
        tuple(known["fully_connected"]), tuple(SparsePath(**path) for path in known["paths"])
    )
    sparsity = patterns.LIKELY_SPARSITY if isinstance(spec.sparsity, str) else spec.sparsity
    return patterns.choose(read_outline(context, stage.inputs["outline"]), found, sparsity)


def _latencies(stage: Stage, context: Context) -> Callable[[Sequence[tf.keras.Model]], list[float]]:
    """Measures Keras models on the device, converted as the variant will be."""
    target = stage.spec["target"]
    exact = target["clock"] == "instructions"
    chosen = {**QUICK, "rounds": 3, **(EXACT if exact else {})}
    rounds = int(chosen["rounds"])
    settings = Settings(
        int(chosen.get("warmup_runs", 5)),
        chosen["warmup_seconds"],
        int(chosen["min_runs"]) // rounds + 1,
        chosen["min_seconds"] / rounds,
        context.pipeline.benchmark.timeout_seconds,
    )
    asked = 0

    def measure(models: Sequence[tf.keras.Model]) -> list[float]:
        nonlocal asked
        from edgesparse import data
        from edgesparse.tflite import convert

        asked += 1
        samples = data.representative(context.dataset, 16)
        with tempfile.TemporaryDirectory() as place:
            entries = []
            for number, model in enumerate(models):
                path = Path(place) / f"{number}.tflite"
                path.write_bytes(convert.convert(model, target["scheme"], samples))
                runtime = target["runtime"]["name"]
                entries.append(Entry(str(number), path, runtime, target["delegate"], 1))
            job = Job(f"{context.run}-{stage.key[:12]}-{asked}", rounds, settings, tuple(entries))
            events = run_job(context.transport, job, stop=context.stop)
        failed = next((event for event in events if isinstance(event, Failed)), None)
        if failed is not None:
            raise EdgesparseError(f"a candidate does not run on the device: {failed.error}")
        found = round_medians(events)
        return [statistics.median(found[entry.name]) / 1e6 for entry in entries]

    return measure
