"""One step of a variant's `sparsify`: weights or channels are taken away, then it is fine-tuned."""

from __future__ import annotations

import dataclasses
import statistics
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from edgesparse.devices.agent.events import Failed
from edgesparse.devices.agent.job import Entry, Job, Settings
from edgesparse.devices.agent.run_job import round_medians, run_job
from edgesparse.measure.job import EXACT, QUICK
from edgesparse.spec.code import references
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.safe.temporary import temporary_folder
from edgesparse.spec.safe.text import listed
from edgesparse.spec.sparsify import (
    REPORTED_GAP,
    Channels,
    Magnitude,
    Rigl,
    Sparsify,
    SparsifyReference,
)
from edgesparse.spec.training import Train
from edgesparse.stages import sensitivity, untrained_model
from edgesparse.stages.base.artifacts import is_as_built, read_keras, save_keras, write_json
from edgesparse.stages.base.stage import (
    DATA_LIBRARIES,
    NOTES,
    TOOLKIT_LIBRARIES,
    Devices,
    PlanContext,
    Stage,
    StageContext,
    StageKind,
    with_location,
)

if TYPE_CHECKING:
    import tensorflow as tf

    from edgesparse.data import Dataset
    from edgesparse.methods.report import Coverage, LayerSparsity, Sparsified

COVERAGE, LAYERS = "coverage.json", "sparsity.json"
_NAMED = 4
RATE = 1 / 3
"""Fine-tuning starts from trained weights: a smaller step than training's."""


def key_inputs(
    shared: Mapping[str, Any],
    step: Sparsify,
    code: str | None,
    target: Mapping[str, Any],
    chosen: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the result depends on.

    Args:
        shared: the data and the training's settings.
        code: the digest of the user's own method.
        target: the device and what runs there; part of the key only where a latency is asked for,
            so that everything else is trained once for all devices.
        chosen: what `pattern: auto` goes by; see untrained_model.exploited.
    """
    own = step.model_dump(mode="json")
    for name, default in (("allow_partial", False), ("scope", "layer")):
        if own.get(name) == default and not (name == "scope" and isinstance(step, Channels)):
            own.pop(name)  # It shapes no result where nobody asks for it.
    spec: dict[str, Any] = {**shared, "sparsify": own}
    if code:
        spec["digest"] = code
    if isinstance(step, Channels) and step.latency is not None:
        spec["target"] = target
    return {**spec, **chosen}


def run(context: StageContext) -> None:
    """Leave the sparse Keras model, its zeros by layer, and what is to be said under the table."""
    from edgesparse.methods.training import fitting

    spec: Any = TypeAdapter(Sparsify).validate_python(context.stage.spec["sparsify"])
    model = read_keras(context, "model")
    anew = isinstance(spec, Rigl) and spec.from_scratch
    train = fitting.fine_tune(context.plan.train, spec, 1.0 if anew else RATE)
    with context.dataset() as dataset:
        with with_location(context):
            done = _carried_out(context, model, spec, dataset, train)
        # A user's own method may return any model.
        fitting.check_fit(done.model, dataset, train)
        scores = fitting.scores(done.model, dataset)
        kept = done.keeps_layers and is_as_built(context, "model")
        save_keras(done.model, context.folder, done.history, scores, as_built=kept)
    layers = [
        {**dataclasses.asdict(layer), "achieved": round(layer.achieved, 6)} for layer in done.layers
    ]
    write_json(context.folder / LAYERS, layers)
    notes = [*context.notes_of("model"), *done.notes, *_misfits(done.layers)]
    notes += fitting.told(done.history, "fine-tuning")
    if done.coverage is not None:
        write_json(context.folder / COVERAGE, dataclasses.asdict(done.coverage))
        notes += _uncovered(done.coverage)
    write_json(context.folder / NOTES, notes)


def _uncovered(done: Coverage) -> list[str]:
    """What a step did not reach, where that is much."""
    if abs(done.target - done.achieved) <= REPORTED_GAP:
        return []
    every = [f"{one.name} ({one.share:.1%}): {one.reason}" for one in done.left_dense]
    left = listed(every, _NAMED, "; ")
    return [f"{done.target:.0%} zeros asked for, {done.achieved:.1%} reached; left dense: {left}"]


def _misfits(layers: Sequence[LayerSparsity]) -> list[str]:
    """Where a pattern could not be laid over a layer; one line for each reason."""
    found: dict[str, list[str]] = {}
    for layer in layers:
        if layer.note and layer.pattern != "channels":
            found.setdefault(layer.note, []).append(layer.name)
    return [f"{', '.join(names)}: {note}" for note, names in found.items()]


def _carried_out(
    context: StageContext, model: tf.keras.Model, spec: Any, dataset: Dataset, train: Train
) -> Sparsified:
    progress = context.progress
    if isinstance(spec, Magnitude):  # The one method that may say `auto`.
        from edgesparse.methods.choosing import auto

        found = None
        if "sensitivity" in context.inputs:
            found = sensitivity.read(context.inputs["sensitivity"])
        return auto.prune(
            model, dataset, train, untrained_model.resolve(context, model, spec), progress, found
        )
    from edgesparse.methods import report

    # Found by its name or reference, and given what it has parameters for: a built-in is no more
    # than a user's own.
    own = isinstance(spec, SparsifyReference)
    name, ref = (None, spec.method) if own else (spec.method, None)
    target = references.find("methods", name, ref, context.plan.loaded.folder)
    given = {
        "model": model,
        "dataset": dataset,
        "train": train,
        "spec": spec,
        "progress": progress,
        "measure": _measured(context) if "target" in context.stage.spec else None,
    }
    result = references.call(target, spec.args if own else {}, given)
    return report.as_sparsified(result, target.label)


def _measured(context: StageContext) -> Callable[[Sequence[tf.keras.Model]], list[float]]:
    """Measures Keras models on the device, converted as the variant will be."""
    from edgesparse import data
    from edgesparse.tflite import convert

    calibration = data.representative(context.plan.dataset, 16)
    samples = [calibration[name] for name in context.plan.recipe.inputs]
    scheme = context.stage.spec["target"]["scheme"]

    def measure(models: Sequence[tf.keras.Model]) -> list[float]:
        with temporary_folder() as place:
            paths = []
            for number, model in enumerate(models):
                path = Path(place) / f"{number}.tflite"
                path.write_bytes(convert.convert(model, scheme, samples))
                paths.append(str(path))
            latencies: list[float] = context.request(paths)
            return latencies

    return measure


def latencies_ms(
    stage: Stage, context: PlanContext, devices: Devices, files: Sequence[str]
) -> list[float]:
    """Median latencies of model files on the device, measured side by side."""
    target = stage.spec["target"]
    exact = target["clock"] == "instructions"
    # A search, not a claim: candidates differ by far more than a short measurement scatters.
    chosen = {**QUICK, "rounds": 3, **(EXACT if exact else {})}
    rounds = int(chosen["rounds"])
    settings = Settings(
        int(chosen.get("warmup_runs", 5)),
        chosen["warmup_seconds"],
        int(chosen["min_runs"]) // rounds + 1,
        chosen["min_seconds"] / rounds,
        context.pipeline.benchmark.timeout_seconds,
    )
    runtime, delegate = target["runtime"]["name"], target["delegate"]
    entries = [Entry(Path(file).stem, Path(file), runtime, delegate, 1) for file in files]
    # A name of its own: a journal of other models must not be continued.
    name = f"{devices.run}-{stage.key[:12]}-{uuid.uuid4().hex[:8]}"
    job = Job(name, rounds, settings, tuple(entries))
    events = run_job(devices.transport, job, stop=devices.stop)
    failed = next((event for event in events if isinstance(event, Failed)), None)
    if failed is not None:
        raise EdgesparseError(f"a candidate does not run on the device: {failed.error}")
    found = round_medians(events)
    return [statistics.median(found[entry.name]) / 1e6 for entry in entries]


KIND = StageKind(
    "sparsify", 5, (*DATA_LIBRARIES, *TOOLKIT_LIBRARIES), run, handle_request=latencies_ms
)
