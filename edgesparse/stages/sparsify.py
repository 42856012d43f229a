"""One step of a variant's `sparsify`: weights or channels are taken away, then it is fine-tuned."""

from __future__ import annotations

import dataclasses
import statistics
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import TypeAdapter

from edgesparse.devices.agent.events import Failed
from edgesparse.devices.agent.job import Entry, Job, Settings
from edgesparse.devices.agent.run_job import round_medians, run_job
from edgesparse.measure.benchmark import EXACT, QUICK
from edgesparse.spec.code import references
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.safe.temporary_folders import temporary_folder
from edgesparse.spec.safe.text import listed
from edgesparse.spec.sparsify import (
    AUTO_MULTIPLE,
    REPORTED_GAP,
    Channels,
    Magnitude,
    Rigl,
    Sparsify,
    SparsifyReference,
    matches,
)
from edgesparse.spec.step import BLOCKS, Pattern
from edgesparse.spec.training import Train
from edgesparse.stages import sensitivity, untrained_model
from edgesparse.stages.base.artifacts import (
    is_as_built,
    read_keras,
    save_keras,
    with_teacher,
    write_json,
)
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
from edgesparse.tflite.runtimes.compatibility import Profile
from edgesparse.tflite.runtimes.patterns import LIKELY_SPARSITY

if TYPE_CHECKING:
    import tensorflow as tf

    from edgesparse.data import Dataset
    from edgesparse.methods.coverage import Coverage, LayerSparsity, Sparsified
    from edgesparse.methods.network.kernels import Kernel

COVERAGE, LAYERS = "coverage.json", "sparsity.json"
_MULTIPLE = "channel_multiple"
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
        code: the digest of a user's method.
        target: the device and its runtime; part of the key only of a latency budget, so that
            everything else is trained once for all devices.
        chosen: the inputs of `pattern: auto`, see untrained_model.exploited, and of `round_to:
            auto`, see channel_inputs.
    """
    settings = step.model_dump(mode="json")
    if settings.get("allow_partial") is False:
        settings.pop("allow_partial")  # It changes no result, but whether there is one.
    for later in ("distill", "batch_size"):  # Keys without them stay what they were.
        if settings.get(later) is None:
            settings.pop(later, None)
    spec: dict[str, Any] = {**shared, "sparsify": settings}
    if code:
        spec["digest"] = code
    if isinstance(step, Channels) and step.latency is not None:
        spec["target"] = target
    if _has_blocks(step):
        spec["channels"] = "ordered"
    return {**spec, **chosen}


def _has_blocks(step: Sparsify) -> bool:
    """True where channels are put in an order in which blocks keep larger weights first."""
    if isinstance(step, SparsifyReference) or (isinstance(step, Rigl) and step.from_scratch):
        return False  # Untrained weights have no order.
    overrides = step.layers.values() if isinstance(step, Magnitude) else ()
    patterns = [getattr(step, "pattern", None), *(override.pattern for override in overrides)]
    return any(pattern == "auto" or pattern in BLOCKS for pattern in patterns)


def channel_inputs(step: Sparsify, profiles: Iterable[Profile]) -> dict[str, Any]:
    """Return the inputs of `round_to: auto`: the target's multiple of channels, not its name, so
    that devices with the same one share the training. Empty for 8, and without `auto`."""
    if not isinstance(step, Channels) or step.round_to != "auto":
        return {}
    multiple = max((p.channel_multiple.number for p in profiles), default=AUTO_MULTIPLE)
    return {} if multiple == AUTO_MULTIPLE else {_MULTIPLE: multiple}


def run(context: StageContext) -> None:
    """Write the sparse Keras model, its sparsity by layer, its coverage, and notes."""
    from edgesparse.methods.training import fitting

    spec: Any = TypeAdapter(Sparsify).validate_python(context.stage.spec["sparsify"])
    model = read_keras(context, "model")
    from_scratch = isinstance(spec, Rigl) and spec.from_scratch
    train = fitting.fine_tune(context.plan.train, spec, 1.0 if from_scratch else RATE)
    with context.dataset() as plain:
        dataset = with_teacher(context, plain, spec.distill)
        with with_location(context):
            result = _apply(context, model, spec, dataset, train)
        # A user's method can return any model.
        fitting.check_fit(result.model, dataset, train)
        scores = fitting.scores(result.model, dataset)
        is_as_built_model = result.keeps_layers and is_as_built(context, "model")
        save_keras(result.model, context.folder, result.history, scores, as_built=is_as_built_model)
    layers = [
        {**dataclasses.asdict(layer), "achieved": round(layer.achieved, 6)}
        for layer in result.layers
    ]
    write_json(context.folder / LAYERS, layers)
    notes = [*context.notes_of("model"), *result.notes, *_pattern_notes(result.layers)]
    notes += fitting.training_notes(result.history, "fine-tuning")
    if dataset.teacher is not None and not dataset.teacher.is_used:
        notes.append(f"'distill' had no effect: {spec.method} trains by itself")
    if result.coverage is not None:
        write_json(context.folder / COVERAGE, dataclasses.asdict(result.coverage))
        notes += _coverage_notes(result.coverage)
    write_json(context.folder / NOTES, notes)


def _coverage_notes(done: Coverage) -> list[str]:
    """Return a note on layers left dense, where the achieved sparsity is far below the target."""
    if abs(done.target - done.achieved) <= REPORTED_GAP:
        return []
    every = [f"{layer.name} ({layer.share:.1%}): {layer.reason}" for layer in done.left_dense]
    left = f"; left dense: {listed(every, _NAMED, '; ')}" if every else ""
    return [f"target sparsity {done.target:.0%}, achieved {done.achieved:.1%}{left}"]


def _pattern_notes(layers: Sequence[LayerSparsity]) -> list[str]:
    """Return a note for each reason for which a pattern does not fit layers."""
    layers_by_note: dict[str, list[str]] = {}
    for layer in layers:
        if layer.note and layer.pattern != "channels":
            layers_by_note.setdefault(layer.note, []).append(layer.name)
    return [f"{', '.join(names)}: {note}" for note, names in layers_by_note.items()]


def _ordered(
    model: tf.keras.Model, spec: Any, dataset: Dataset
) -> tuple[tf.keras.Model, tuple[str, ...]]:
    """Return the model with its channels in an order in which blocks keep larger weights, and
    notes."""
    from edgesparse.methods.choosing.channel_order import ordered
    from edgesparse.methods.training.fitting import comparison_samples

    def pattern_of(kernel: Kernel) -> Pattern | None:
        if kernel.reason or matches(spec.exclude, kernel.names):
            return None
        if not isinstance(spec, Magnitude):
            return cast("Pattern", spec.pattern)
        share, pattern = spec.for_kernel(kernel.names)  # Without `auto`, resolved before.
        return cast("Pattern", pattern) if share else None

    sparsity = spec.sparsity if isinstance(spec.sparsity, float) else LIKELY_SPARSITY
    return ordered(model, pattern_of, sparsity, comparison_samples(model, dataset))


def _apply(
    context: StageContext, model: tf.keras.Model, spec: Any, dataset: Dataset, train: Train
) -> Sparsified:
    progress = context.progress
    notes: tuple[str, ...] = ()
    if isinstance(spec, Magnitude):  # The only method with `auto`.
        from edgesparse.methods.choosing import auto

        measured = None
        if "sensitivity" in context.inputs:
            measured = sensitivity.read_sensitivity(context.inputs["sensitivity"])
        resolved = untrained_model.resolve(context, model, spec)
        if _has_blocks(spec) and measured is None:  # Sensitivities are those of this order.
            model, notes = _ordered(model, resolved.spec, dataset)
        done = auto.prune(model, dataset, train, resolved, progress, measured)
        return dataclasses.replace(done, notes=(*notes, *done.notes))
    from edgesparse.methods import coverage

    # Built-in methods and those of users are called in the same way: with the arguments that they
    # have parameters for.
    is_user_method = isinstance(spec, SparsifyReference)
    name, ref = (None, spec.method) if is_user_method else (spec.method, None)
    target = references.find("methods", name, ref, context.plan.loaded.folder)
    if _has_blocks(spec):
        model, notes = _ordered(model, spec, dataset)
    arguments = {
        "model": model,
        "dataset": dataset,
        "train": train,
        "spec": spec,
        "progress": progress,
        "measure": _measure_on_device(context) if "target" in context.stage.spec else None,
        _MULTIPLE: context.stage.spec.get(_MULTIPLE, AUTO_MULTIPLE),
    }
    result = references.call(target, spec.args if is_user_method else {}, arguments)
    done = coverage.as_sparsified(result, target.label)
    return dataclasses.replace(done, notes=(*notes, *done.notes))


def _measure_on_device(context: StageContext) -> Callable[[Sequence[tf.keras.Model]], list[float]]:
    """Return a function that measures Keras models on the device, converted as the variant."""
    from edgesparse import data
    from edgesparse.tflite import convert

    calibration = data.representative(context.plan.dataset, 16)
    samples = [calibration[name] for name in context.plan.recipe.inputs]
    scheme = context.stage.spec["target"]["scheme"]

    def measure(models: Sequence[tf.keras.Model]) -> list[float]:
        with temporary_folder() as folder:
            paths = []
            for number, model in enumerate(models):
                path = Path(folder) / f"{number}.tflite"
                path.write_bytes(convert.convert(model, scheme, samples))
                paths.append(str(path))
            latencies: list[float] = context.request(paths)
            return latencies

    return measure


def latencies_ms(
    stage: Stage, context: PlanContext, devices: Devices, files: Sequence[str]
) -> list[float]:
    """Return the median latencies of model files on the device, measured in interleaved rounds."""
    target = stage.spec["target"]
    counts_instructions = target["clock"] == "instructions"
    # A quick measurement: candidates differ by far more than its noise.
    benchmark = EXACT if counts_instructions else {**QUICK, "rounds": 3, "min_seconds": 1.0}
    rounds = int(benchmark["rounds"])
    settings = Settings(
        int(benchmark.get("warmup_runs", 5)),
        benchmark["warmup_seconds"],
        int(benchmark["min_runs"]) // rounds + 1,
        benchmark["min_seconds"] / rounds,
        context.pipeline.benchmark.timeout_seconds,
    )
    runtime, delegate = target["runtime"]["name"], target["delegate"]
    entries = [Entry(Path(file).stem, Path(file), runtime, delegate, 1) for file in files]
    # A unique id: the journal of other models must not be continued.
    name = f"{devices.run}-{stage.key[:12]}-{uuid.uuid4().hex[:8]}"
    job = Job(name, rounds, settings, tuple(entries))
    events = run_job(devices.transport, job, stop=devices.stop)
    failed = next((event for event in events if isinstance(event, Failed)), None)
    if failed is not None:
        raise EdgesparseError(f"a candidate failed on the device: {failed.error}")
    medians = round_medians(events)
    return [statistics.median(medians[entry.name]) / 1e6 for entry in entries]


KIND = StageKind(
    "sparsify", 7, (*DATA_LIBRARIES, *TOOLKIT_LIBRARIES), run, handle_request=latencies_ms
)
