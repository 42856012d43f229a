"""Mistakes in a pipeline that no single value shows."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from edgesparse.spec.code import references
from edgesparse.spec.code.saved import is_folder, is_saved, saved_model_problems
from edgesparse.spec.code.snapshot import is_file
from edgesparse.spec.code.sources import exists, shown
from edgesparse.spec.errors import Problem, UsageError, did_you_mean
from edgesparse.spec.pipeline import (
    ROW_METRICS,
    TASK_METRICS,
    ModelSource,
    Pipeline,
    Source,
    Variant,
)
from edgesparse.spec.reading.document import Document, Location
from edgesparse.spec.task import TaskSpec

SPARSIFY_PARAMETERS = ("model", "dataset", "train", "spec", "progress")
"""Parameters that edgesparse passes to a sparsify function that has them."""
TRAIN_PARAMETERS = ("model", "dataset", "train", "callbacks", "batches", "validation")
"""The same for a training loop."""
DATA_PARAMETERS = ("base",)
"""The same for a dataset's loader: the folder of the YAML file."""
DATA_FILES = ("path", "splits", "masks", "train", "validation", "test")
"""Arguments of built-in loaders that name files, folders or, in tfrecord, patterns of them."""


def pipeline_problems(pipeline: Pipeline, document: Document) -> list[Problem]:
    """Mistakes that no single value shows: names of variants, references and their arguments."""
    problems = []
    names = pipeline.variants
    if pipeline.baseline is not None and pipeline.baseline not in names:
        hint = did_you_mean(pipeline.baseline, names)
        message = f"baseline {pipeline.baseline!r} is no variant{hint}"
        problems.append(document.problem(("baseline",), message))
    if pipeline.release not in (*names, "auto", "none"):
        hint = did_you_mean(pipeline.release, [*names, "auto", "none"])
        message = f"release {pipeline.release!r} is no variant{hint}"
        problems.append(document.problem(("release",), message))
    for i, gate in enumerate(pipeline.gates):
        if gate.variant not in names:
            message = f"{gate.variant!r} is no variant{did_you_mean(gate.variant, names)}"
            problems.append(document.problem(("gates", i, "variant"), message))
        elif not _may_be_metric(gate.metric, pipeline):
            known = [*ROW_METRICS, *(f"{m}{end}" for m in TASK_METRICS for end in ("", "_drop"))]
            message = f"{gate.metric!r} is no metric{did_you_mean(gate.metric, known)}"
            problems.append(document.problem(("gates", i, "metric"), message))
    problems += _search_problems(pipeline, document)
    problems += _source_problems(document, ("data",), "data", pipeline.data, given=DATA_PARAMETERS)
    problems += _data_problems(document, pipeline.data)
    problems += _model_problems(pipeline, document, ("model",), pipeline.model)
    for name, variant in pipeline.variants.items():
        if variant.model is not None:
            place: Location = ("variants", name, "model")
            problems += _model_problems(pipeline, document, place, variant.model)
    problems += _training_problems(pipeline, document)
    for name, variant in pipeline.variants.items():
        for i, step in variant.references:
            location: Location = ("variants", name, "sparsify")
            if (*location, i) in document.values:
                location = (*location, i)
            source = Source(ref=step.method, args=step.args)
            problems += _source_problems(
                document, location, "methods", source, key="method", given=SPARSIFY_PARAMETERS
            )
    return problems


def _search_problems(pipeline: Pipeline, document: Document) -> list[Problem]:
    """Whether what a search makes are variants, and what it looks for are metrics."""
    search, at = pipeline.search, ("search", "variant")
    if search is None:
        return []
    problems = []
    metrics: list[tuple[Location, str]] = [
        (("search", "objectives", i), name) for i, name in enumerate(search.objectives)
    ]
    metrics += [
        (("search", "constraints", i, "metric"), one.metric)
        for i, one in enumerate(search.constraints)
    ]
    for location, name in metrics:
        if not _may_be_metric(name, pipeline):
            hint = did_you_mean(name, [*ROW_METRICS, *TASK_METRICS])
            problems.append(document.problem(location, f"{name!r} is no metric{hint}"))
    try:
        for example in search.examples():
            variant = Variant.model_validate(example)
            if variant.model is not None and not problems:
                problems += _model_problems(pipeline, document, (*at, "model"), variant.model)
    except ValidationError as error:
        first = error.errors()[0]
        keys = [str(part) for part in first["loc"]]
        inside: Location = at
        while keys and (*inside, keys[0]) in document.keys:
            inside = (*inside, keys.pop(0))
        said = f"{'.'.join([*map(str, inside[1:]), *keys])}: {first['msg']}, where {example!r}"
        problems.append(document.problem(inside, f"some of these are no variants: {said}"))
    except ValueError as error:
        problems.append(document.problem(at, str(error)))
    return problems


def _may_be_metric(name: str, pipeline: Pipeline) -> bool:
    """Whether a gate's metric is one of a task that is known here: one's own has its own."""
    tasks = [pipeline.task, *pipeline.task.outputs.values()]
    own = any(task.ref is not None for task in tasks) or " " in name
    plain = re.sub(r"^top-\d+", "top-5", name.removesuffix("_drop"))
    return own or name in ROW_METRICS or plain in TASK_METRICS


def _data_problems(document: Document, data: Source) -> list[Problem]:
    """Files that built-in loaders are to read; arguments of the user's own loaders are theirs."""
    base = Path(document.path).absolute().parent
    named = {name: data.args.get(name) for name in DATA_FILES} if data.name is not None else {}
    return [
        document.problem(("data", "args", name), f"no {shown(value)} beside the YAML file")
        for name, value in named.items()
        if isinstance(value, str) and not exists(base, value)
    ]


def _model_problems(
    pipeline: Pipeline, document: Document, at: Location, model: ModelSource
) -> list[Problem]:
    problems: list[Problem] = []
    base = Path(document.path).absolute().parent
    if is_saved(model):
        problems += [
            document.problem((*at, key), said) for key, said in saved_model_problems(model, base)
        ]
        # A SavedModel is a graph without layers: there is nothing in it to train or to prune.
        if not problems and is_folder(model, base):
            changed: list[Location] = [
                ("variants", name)
                for name, variant in pipeline.variants.items()
                if (variant.sparsify or variant.quantize.qat)
                and pipeline.for_variant(variant).model is model
            ]
            if pipeline.train.epochs:
                changed.append(("train",) if ("train",) in document.values else (*at, "ref"))
            why = (
                "a SavedModel has no layers to train or prune: leave out 'sparsify' and 'qat', "
                "and say 'train: {epochs: 0}'; or name a function that builds the model"
            )
            problems += [document.problem(place, why) for place in changed]
    else:
        problems += _source_problems(document, at, "models", model)
    if model.weights is not None and not is_file(base / model.weights):
        said = f"no file {shown(model.weights)} beside the YAML file"
        problems.append(document.problem((*at, "weights"), said))
    for i, ref in enumerate(model.custom_objects):
        try:
            references.find("models", None, ref, base, classes=True)
        except UsageError as error:
            problems.append(document.problem((*at, "custom_objects", i), str(error)))
    return problems


def _source_problems(
    document: Document,
    location: Location,
    room: str,
    source: Source,
    *,
    key: str | None = None,
    given: tuple[str, ...] = (),
) -> list[Problem]:
    key = key or ("name" if source.name is not None else "ref")
    try:
        target = references.find(
            room, source.name, source.ref, Path(document.path).absolute().parent
        )
        found = references.check_arguments(target, source.args, given)
    except UsageError as error:
        return [document.problem((*location, key), str(error))]
    return [
        document.problem((*location, "args", name), message, key=True)
        if name is not None
        else document.problem((*location, "args"), message)
        for name, message in found
    ]


def _training_problems(pipeline: Pipeline, document: Document) -> list[Problem]:
    """Of the user's own loop, callbacks and task."""
    train, problems = pipeline.train, []
    if train.ref is not None:
        source = Source(ref=train.ref, args=train.args)
        problems += _source_problems(
            document, ("train",), "training", source, given=TRAIN_PARAMETERS
        )
    elif train.args:
        problems.append(document.problem(("train", "args"), "'args' goes with 'ref'"))
    base = Path(document.path).absolute().parent
    for i, callback in enumerate(train.callbacks):
        try:
            references.find("training", None, callback.ref, base, classes=True)
        except UsageError as error:
            problems.append(document.problem(("train", "callbacks", i), str(error)))
    tasks: dict[Location, TaskSpec] = {("task",): pipeline.task}
    tasks |= {("task", "outputs", name): one for name, one in pipeline.task.outputs.items()}
    for place, task in tasks.items():
        if task.ref is not None:
            source = Source(ref=task.ref, args=task.args)
            problems += _source_problems(document, place, "tasks", source)
    return problems
