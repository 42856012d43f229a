"""Digests of the user's code, data and models, for the keys of a plan."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgesparse.spec.code import saved_models
from edgesparse.spec.code.run_inputs import Inputs
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import ModelSource, Pipeline, Source
from edgesparse.spec.reading.load import Loaded


def digests(loaded: Loaded[Pipeline]) -> dict[str, str]:
    """Return the digests of a pipeline's code and files; see plan.build_plan."""
    return inputs_of(loaded).digests


def inputs_of(loaded: Loaded[Pipeline]) -> Inputs:
    """Return the code and files that a pipeline refers to, with digests by role."""
    pipeline, base, seen = loaded.spec, loaded.folder, Inputs()
    digests = seen.digests
    digests["data"] = _source_digest("data", pipeline.data, base, seen)
    digests["model"] = _model_digest(pipeline.model, base, seen)
    tasks = [pipeline.task, *pipeline.task.outputs.values()]
    sources = [("tasks", task.ref, task.args) for task in tasks if task.ref is not None]
    digests |= _user_code_digest("task", sources, base, seen)
    train = pipeline.train
    sources = [("training", callback.ref, callback.args) for callback in train.callbacks]
    sources += [("training", train.ref, train.args)] if train.ref is not None else []
    digests |= _user_code_digest("training", sources, base, seen)
    for name, variant in pipeline.variants.items():
        if variant.model is not None:
            digests[f"model {name}"] = _model_digest(variant.model, base, seen)
        for i, step in variant.references:
            source = Source(ref=step.method, args=step.args)
            digests[f"sparsify {name} {i}"] = _source_digest("methods", source, base, seen)
    return seen


def user_code(inputs: Inputs) -> str:
    """Return the digest of the user's code that stages import; empty where there is none."""
    total = hashlib.sha256()
    for path, content in sorted(inputs.code.items()):
        total.update(f"{path}\0{len(content)}\0".encode() + content)
    modules = sorted(
        (ref, digest) for (_, _, ref), digest in inputs.installed.items() if ref is not None
    )
    total.update(repr(modules).encode())
    return total.hexdigest() if inputs.code or modules else ""


def _user_code_digest(
    role: str, sources: Sequence[tuple[str, str, Mapping[str, Any]]], base: Path, seen: Inputs
) -> dict[str, str]:
    """Return the digest of the user's code in a role, by role; empty where there is none."""
    if not sources:
        return {}
    total = hashlib.sha256()
    for package, ref, args in sources:
        source = Source(ref=ref, args=dict(args))
        total.update(_source_digest(package, source, base, seen).encode())
    return {role: total.hexdigest()}


def _model_digest(model: ModelSource, base: Path, seen: Inputs) -> str:
    if model.torch is not None:
        raise UsageError(saved_models.NOT_CONVERTED.format(model.torch))
    if saved_models.is_saved(model):
        first = _saved_digest(base / str(model.ref), seen)
    else:
        first = _source_digest("models", model, base, seen)
    if model.weights is None and not model.custom_objects:
        return first
    total = hashlib.sha256(first.encode())
    if model.weights is not None:
        total.update(_saved_digest(base / model.weights, seen).encode())
    for ref in model.custom_objects:
        total.update(f"{ref}\0{seen.target(('layers', None, ref), base)}".encode())
    return total.hexdigest()


def _saved_digest(path: Path, seen: Inputs) -> str:
    """Return the digest of a file, or of all files in a folder."""
    digests = seen.add_path(path)
    if not path.is_dir():
        return digests[str(path)]
    total = hashlib.sha256()
    for file, digest in digests.items():
        total.update(f"{Path(file).relative_to(path)}\0{digest}\0".encode())
    return total.hexdigest()


def _source_digest(role: str, source: Source, base: Path, seen: Inputs) -> str:
    """Return the digest of a function's code and of the files named in its arguments."""
    total = hashlib.sha256(seen.target((role, source.name, source.ref), base).encode())
    # Any text among the arguments can be a path, whose content shapes the result.
    for text in sorted(_texts(source.args)):
        path = base / text
        try:
            if text and (path.is_file() or path.is_dir()):
                for file, digest in seen.add_path(path).items():
                    within = f"\0{Path(file).relative_to(path)}" if file != str(path) else ""
                    total.update(f"\0{text}{within}\0{digest}".encode())
        except (OSError, ValueError):
            continue  # Not a path, or an invalid one, which the loader reports.
    return total.hexdigest()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
