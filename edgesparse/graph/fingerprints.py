"""What the plan needs to know about the world: digests of files, versions of libraries."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from edgesparse.spec.code import references, saved
from edgesparse.spec.pipeline import ModelSource, Pipeline, Source
from edgesparse.spec.reading.load import Loaded
from edgesparse.spec.safe.files import file_digest
from edgesparse.stages import NAMES, kind


def library_versions() -> dict[str, str]:
    """Versions of what shapes artifacts, without importing any of it."""
    names = sorted({library for stage in NAMES for library in kind(stage).libraries})
    found = {"python": platform.python_version()}
    for name in ("edgesparse", *names):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def revision(folder: Path, name: str = "HEAD") -> str:
    """The git commit of a folder, or of a revision's name there, with a plus where tracked files of
    HEAD have changed since; empty where there is none."""

    def git(*words: str) -> str:
        try:
            done = subprocess.run(
                # The folder's own settings could name a program to be run.
                ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *words],
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired, ValueError):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    changed = name == "HEAD" and commit and git("status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if changed else commit


def digests(loaded: Loaded[Pipeline]) -> dict[str, str]:
    """Digests of the code and files that a pipeline refers to; see plan.build_plan."""
    pipeline, base = loaded.spec, loaded.folder
    found = {"data": _source_digest("data", pipeline.data, base)}
    found["model"] = _model_digest(pipeline.model, base)
    tasks = [pipeline.task, *pipeline.task.outputs.values()]
    own = [("tasks", task.ref, task.args) for task in tasks if task.ref is not None]
    found |= _own_digest("task", own, base)
    train = pipeline.train
    own = [("training", given.ref, given.args) for given in train.callbacks]
    own += [("training", train.ref, train.args)] if train.ref is not None else []
    found |= _own_digest("training", own, base)
    for name, variant in pipeline.variants.items():
        if variant.model is not None:
            found[f"model {name}"] = _model_digest(variant.model, base)
        for i, step in variant.references:
            source = Source(ref=step.method, args=step.args)
            found[f"sparsify {name} {i}"] = _source_digest("sparsity", source, base)
    return found


def own_code(loaded: Loaded[Pipeline]) -> str:
    """Identity of the user's code that a pipeline's stages import; empty where there is none."""
    pipeline, base = loaded.spec, loaded.folder
    models = [pipeline.model, *(v.model for v in pipeline.variants.values() if v.model)]
    refs = [("data", pipeline.data.ref)]
    refs += [("models", model.ref) for model in models if not saved.is_saved(model)]
    refs += [("models", ref) for model in models for ref in model.custom_objects]
    refs += [("tasks", task.ref) for task in (pipeline.task, *pipeline.task.outputs.values())]
    refs += [("training", callback.ref) for callback in pipeline.train.callbacks]
    refs += [("training", pipeline.train.ref)]
    steps = (step for variant in pipeline.variants.values() for _, step in variant.references)
    refs += [("sparsity", step.method) for step in steps]
    total = hashlib.sha256(str(base.absolute()).encode())
    named = sorted({(room, ref) for room, ref in refs if ref is not None})
    for room, ref in named:
        total.update(
            references.digest(references.find(room, None, ref, base, classes=True)).encode()
        )
    return total.hexdigest() if named else ""


def _own_digest(
    role: str, own: Sequence[tuple[str, str, Mapping[str, Any]]], base: Path
) -> dict[str, str]:
    """Of the user's own code in a role; nothing where there is none."""
    if not own:
        return {}
    total = hashlib.sha256()
    for room, ref, args in own:
        source = Source(ref=ref, args=dict(args))
        total.update(_source_digest(room, source, base).encode())
    return {role: total.hexdigest()}


def _model_digest(model: ModelSource, base: Path) -> str:
    if saved.is_saved(model):
        first = saved.digest(base / str(model.ref))
    else:
        first = _source_digest("models", model, base)
    if model.weights is None and not model.custom_objects:
        return first
    total = hashlib.sha256(first.encode())
    if model.weights is not None:
        total.update(file_digest(base / model.weights).encode())
    for ref in model.custom_objects:
        target = references.find("models", None, ref, base, classes=True)
        total.update(f"{ref}\0{references.digest(target)}".encode())
    return total.hexdigest()


def _source_digest(room: str, source: Source, base: Path) -> str:
    """The function's code, and the content of every file or folder named in its arguments."""
    target = references.find(room, source.name, source.ref, base, classes=True)
    total = hashlib.sha256(references.digest(target).encode())
    # Any text among the arguments may be a path; whoever reads it, its content shapes the result.
    for text in sorted(_texts(source.args)):
        place = base / text
        try:
            if place.is_file():
                total.update(f"\0{text}\0{file_digest(place)}".encode())
            elif text and place.is_dir():
                for file in sorted(p for p in place.rglob("*") if p.is_file()):
                    name = file.relative_to(place)
                    total.update(f"\0{text}\0{name}\0{file_digest(file)}".encode())
        except (OSError, ValueError):
            continue  # Not a path after all, or one that the loader will complain about.
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
