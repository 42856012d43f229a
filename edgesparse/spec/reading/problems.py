"""Checks of a pipeline across several values: references, names of variants, metrics."""

from __future__ import annotations

import re

from pydantic import ValidationError

from edgesparse.spec.code import references
from edgesparse.spec.code.saved_models import is_folder, is_saved, saved_model_problems
from edgesparse.spec.code.snapshot import is_file
from edgesparse.spec.code.sources import exists, shown
from edgesparse.spec.code.torch_models import SCHEMES, compress_command, torch_problems
from edgesparse.spec.device import Device
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
"""Parameters that edgesparse passes to a training loop that has them."""
DATA_PARAMETERS = ("base",)
"""Parameters that edgesparse passes to a dataset's loader: the folder of the YAML file."""
TRANSPORT_PARAMETERS = ("name", "workdir")
"""Parameters that edgesparse passes to a plug-in's transport: those of the device file."""
DATA_FILES = ("path", "splits", "masks", "train", "validation", "test")
"""Arguments of built-in loaders that name files, folders or, in tfrecord, patterns of them."""


def pipeline_problems(pipeline: Pipeline, document: Document) -> list[Problem]:
    """Return mistakes across several values: names of variants, references, their arguments."""
    problems = []
    names = pipeline.variants
    if pipeline.baseline is not None and pipeline.baseline not in names:
        hint = did_you_mean(pipeline.baseline, names)
        message = f"baseline: unknown variant {pipeline.baseline!r}{hint}"
        problems.append(document.problem(("baseline",), message))
    if pipeline.release not in (*names, "auto", "none", None):
        hint = did_you_mean(str(pipeline.release), [*names, "auto", "none"])
        message = f"release: unknown variant {pipeline.release!r}{hint}"
        problems.append(document.problem(("release",), message))
    for i, gate in enumerate(pipeline.gates):
        if gate.variant not in names:
            message = f"unknown variant {gate.variant!r}{did_you_mean(gate.variant, names)}"
            problems.append(document.problem(("gates", i, "variant"), message))
        elif not _may_be_metric(gate.metric, pipeline):
            metrics = [*ROW_METRICS, *(f"{m}{end}" for m in TASK_METRICS for end in ("", "_drop"))]
            message = f"unknown metric {gate.metric!r}{did_you_mean(gate.metric, metrics)}"
            problems.append(document.problem(("gates", i, "metric"), message))
    problems += _search_problems(pipeline, document)
    problems += _source_problems(
        document, ("data",), "data", pipeline.data, supplied=DATA_PARAMETERS
    )
    problems += _data_problems(document, pipeline.data)
    problems += _model_problems(pipeline, document, ("model",), pipeline.model)
    for name, variant in pipeline.variants.items():
        if variant.model is not None:
            at: Location = ("variants", name, "model")
            problems += _model_problems(pipeline, document, at, variant.model)
    problems += _training_problems(pipeline, document)
    for name, variant in pipeline.variants.items():
        for i, step in variant.references:
            location: Location = ("variants", name, "sparsify")
            if (*location, i) in document.values:
                location = (*location, i)
            source = Source(ref=step.method, args=step.args)
            problems += _source_problems(
                document, location, "methods", source, key="method", supplied=SPARSIFY_PARAMETERS
            )
    return problems


def _search_problems(pipeline: Pipeline, document: Document) -> list[Problem]:
    """Return mistakes in a search: its metrics, and its template's variants."""
    search, at = pipeline.search, ("search", "variant")
    if search is None:
        return []
    problems = []
    metrics: list[tuple[Location, str]] = [
        (("search", "objectives", i), name) for i, name in enumerate(search.objectives)
    ]
    metrics += [
        (("search", "constraints", i, "metric"), constraint.metric)
        for i, constraint in enumerate(search.constraints)
    ]
    for location, name in metrics:
        if not _may_be_metric(name, pipeline):
            hint = did_you_mean(name, [*ROW_METRICS, *TASK_METRICS])
            problems.append(document.problem(location, f"unknown metric {name!r}{hint}"))
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
        detail = f"{'.'.join([*map(str, inside[1:]), *keys])}: {first['msg']}, where {example!r}"
        problems.append(document.problem(inside, f"the template has invalid variants: {detail}"))
    except ValueError as error:
        problems.append(document.problem(at, str(error)))
    return problems


def _may_be_metric(name: str, pipeline: Pipeline) -> bool:
    """Return False for a metric that no built-in task has; a user's task has any."""
    tasks = [pipeline.task, *pipeline.task.outputs.values()]
    is_custom = any(task.ref is not None for task in tasks) or " " in name
    plain = re.sub(r"^top-\d+", "top-5", name.removesuffix("_drop"))
    return is_custom or name in ROW_METRICS or plain in TASK_METRICS


def device_problems(device: Device, document: Document) -> list[Problem]:
    """Return mistakes in the name and arguments of a plug-in's transport."""
    plugin = device.connect.plugin
    if plugin is None:
        return []
    source = Source(name=plugin.name, args=plugin.args)
    at = ("connect", "plugin")
    return _source_problems(document, at, "transports", source, supplied=TRANSPORT_PARAMETERS)


def _data_problems(document: Document, data: Source) -> list[Problem]:
    """Return missing files of built-in loaders; arguments of a user's loader are not checked."""
    named = {name: data.args.get(name) for name in DATA_FILES} if data.name is not None else {}
    return [
        document.problem(("data", "args", name), f"no {shown(value)} beside the YAML file")
        for name, value in named.items()
        if isinstance(value, str) and not exists(document.folder, value)
    ]


def _model_problems(
    pipeline: Pipeline, document: Document, at: Location, model: ModelSource
) -> list[Problem]:
    problems: list[Problem] = []
    base = document.folder
    if is_saved(model):
        problems += [
            document.problem((*at, key), message)
            for key, message in saved_model_problems(model, base)
        ]
        if not problems and is_folder(model, base):
            why = (
                "a SavedModel has no layers to train or prune: remove 'sparsify' and 'qat', and "
                "set 'train: {epochs: 0}'; or refer to a function that builds the model"
            )
            changed = _changed(pipeline, model)
            if pipeline.train.epochs:
                changed.append(("train",) if ("train",) in document.values else (*at, "ref"))
            problems += [document.problem(location, why) for location in changed]
    elif model.torch is not None:
        problems += [
            document.problem((*at, key), message) for key, message in torch_problems(model, base)
        ]
        if not problems:
            problems = _torch_changes(pipeline, document, model)
    else:
        problems += _source_problems(document, at, "models", model)
    if model.input_shape and model.torch is None:
        message = "'input_shape' requires 'torch'; remove it"
        problems.append(document.problem((*at, "input_shape"), message, key=True))
    if model.torch is None and model.weights and not is_file(base / model.weights):
        message = f"no file {shown(model.weights)} beside the YAML file"
        problems.append(document.problem((*at, "weights"), message))
    for i, ref in enumerate(model.custom_objects):
        try:
            references.find("layers", None, ref, base, classes=True)
        except UsageError as error:
            problems.append(document.problem((*at, "custom_objects", i), str(error)))
    return problems


def _changed(pipeline: Pipeline, model: ModelSource) -> list[Location]:
    """Return the variants that train or prune a model."""
    return [
        ("variants", name)
        for name, variant in pipeline.variants.items()
        if (variant.sparsify or variant.quantize.qat)
        and pipeline.for_variant(variant).model is model
    ]


def _torch_changes(pipeline: Pipeline, document: Document, model: ModelSource) -> list[Problem]:
    """Return what a pipeline asks of a PyTorch network that needs its layers."""
    if pipeline.has_auto_variants:
        message = (
            "a torch model needs named variants: {dense-f32: {}, dense-int8: {quantize: int8}}"
        )
        return [document.problem(("variants",), message)]
    why = (
        "a torch model has no layers to train here: remove 'sparsify' and 'qat', and set "
        "'train: {epochs: 0}'; for zeros without training type: "
        f"{compress_command(document.path)}"
    )
    changed = _changed(pipeline, model)
    # Of a pipeline's only model they are 0 without being written.
    others = pipeline.model.torch is None or any(
        variant.model is not None and variant.model.torch is None
        for variant in pipeline.variants.values()
    )
    if pipeline.train.epochs and (others or "epochs" in pipeline.train.model_fields_set):
        changed.append(("train",) if ("train",) in document.values else ("model",))
    problems = [document.problem(location, why) for location in changed]
    for name, variant in pipeline.variants.items():
        scheme = variant.quantize.scheme
        if scheme not in SCHEMES and pipeline.for_variant(variant).model is model:
            message = f"a torch model cannot become {scheme}; use {', '.join(SCHEMES)}"
            problems.append(document.problem(("variants", name), message))
    return problems


def _source_problems(
    document: Document,
    location: Location,
    package: str,
    source: Source,
    *,
    key: str | None = None,
    supplied: tuple[str, ...] = (),
) -> list[Problem]:
    key = key or ("name" if source.name is not None else "ref")
    try:
        target = references.find(package, source.name, source.ref, document.folder)
        references.require_imports(target)
        wrong = references.check_arguments(target, source.args, supplied)
    except UsageError as error:
        return [document.problem((*location, key), str(error))]
    return [
        document.problem((*location, "args", name), message, key=True)
        if name is not None
        else document.problem((*location, "args"), message)
        for name, message in wrong
    ]


def _training_problems(pipeline: Pipeline, document: Document) -> list[Problem]:
    """Return mistakes in references to a user's training loop, callbacks and tasks."""
    train, problems = pipeline.train, []
    if train.ref is not None:
        source = Source(ref=train.ref, args=train.args)
        problems += _source_problems(
            document, ("train",), "training", source, supplied=TRAIN_PARAMETERS
        )
        problems += [
            document.problem(
                ("variants", name),
                "'distill' has no effect in the training loop of train.ref; remove one of them",
            )
            for name, variant in pipeline.variants.items()
            if variant.is_distilled
        ]
    elif train.args:
        problems.append(document.problem(("train", "args"), "'args' requires 'ref'"))
    for i, callback in enumerate(train.callbacks):
        try:
            references.find("training", None, callback.ref, document.folder, classes=True)
        except UsageError as error:
            problems.append(document.problem(("train", "callbacks", i), str(error)))
    tasks: dict[Location, TaskSpec] = {("task",): pipeline.task}
    tasks |= {("task", "outputs", name): spec for name, spec in pipeline.task.outputs.items()}
    for location, task in tasks.items():
        if task.ref is not None:
            source = Source(ref=task.ref, args=task.args)
            problems += _source_problems(document, location, "tasks", source)
    return problems
