"""What the plan needs to know about the world: digests of files, versions of libraries."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from edgesparse.spec.code import saved
from edgesparse.spec.code.inputs import Inputs
from edgesparse.spec.pipeline import ModelSource, Pipeline, Source
from edgesparse.spec.reading.load import Loaded
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
    return inputs_of(loaded).digests


def inputs_of(loaded: Loaded[Pipeline]) -> Inputs:
    """The code and files that a pipeline refers to, with their digests by role."""
    pipeline, base, seen = loaded.spec, loaded.folder, Inputs()
    found = seen.digests
    found["data"] = _source_digest("data", pipeline.data, base, seen)
    found["model"] = _model_digest(pipeline.model, base, seen)
    tasks = [pipeline.task, *pipeline.task.outputs.values()]
    own = [("tasks", task.ref, task.args) for task in tasks if task.ref is not None]
    found |= _own_digest("task", own, base, seen)
    train = pipeline.train
    own = [("training", given.ref, given.args) for given in train.callbacks]
    own += [("training", train.ref, train.args)] if train.ref is not None else []
    found |= _own_digest("training", own, base, seen)
    for name, variant in pipeline.variants.items():
        if variant.model is not None:
            found[f"model {name}"] = _model_digest(variant.model, base, seen)
        for i, step in variant.references:
            source = Source(ref=step.method, args=step.args)
            found[f"sparsify {name} {i}"] = _source_digest("methods", source, base, seen)
    return seen


def user_code(inputs: Inputs) -> str:
    """Identity of the user's code that a pipeline's stages import; empty where there is none."""
    total = hashlib.sha256()
    for path, content in sorted(inputs.code.items()):
        total.update(f"{path}\0{len(content)}\0".encode() + content)
    modules = sorted(
        (ref, digest) for (_, _, ref), digest in inputs.installed.items() if ref is not None
    )
    total.update(repr(modules).encode())
    return total.hexdigest() if inputs.code or modules else ""


def _own_digest(
    role: str, own: Sequence[tuple[str, str, Mapping[str, Any]]], base: Path, seen: Inputs
) -> dict[str, str]:
    """Of the user's own code in a role; nothing where there is none."""
    if not own:
        return {}
    total = hashlib.sha256()
    for room, ref, args in own:
        source = Source(ref=ref, args=dict(args))
        total.update(_source_digest(room, source, base, seen).encode())
    return {role: total.hexdigest()}


def _model_digest(model: ModelSource, base: Path, seen: Inputs) -> str:
    if saved.is_saved(model):
        first = _saved_digest(base / str(model.ref), seen)
    else:
        first = _source_digest("models", model, base, seen)
    if model.weights is None and not model.custom_objects:
        return first
    total = hashlib.sha256(first.encode())
    if model.weights is not None:
        total.update(_saved_digest(base / model.weights, seen).encode())
    for ref in model.custom_objects:
        total.update(f"{ref}\0{seen.target(('models', None, ref), base)}".encode())
    return total.hexdigest()


def _saved_digest(path: Path, seen: Inputs) -> str:
    """Of a file, or of every file in a folder."""
    found = seen.add_path(path)
    if not path.is_dir():
        return found[str(path)]
    total = hashlib.sha256()
    for file, digest in found.items():
        total.update(f"{Path(file).relative_to(path)}\0{digest}\0".encode())
    return total.hexdigest()


def _source_digest(room: str, source: Source, base: Path, seen: Inputs) -> str:
    """The function's code, and the content of every file or folder named in its arguments."""
    total = hashlib.sha256(seen.target((room, source.name, source.ref), base).encode())
    # Any text among the arguments may be a path; whoever reads it, its content shapes the result.
    for text in sorted(_texts(source.args)):
        place = base / text
        try:
            if text and (place.is_file() or place.is_dir()):
                for file, digest in seen.add_path(place).items():
                    within = f"\0{Path(file).relative_to(place)}" if file != str(place) else ""
                    total.update(f"\0{text}{within}\0{digest}".encode())
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
