"""From a YAML file to a checked pipeline or device, with every mistake found at once."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from edgesparse.spec.device import Device, Group
from edgesparse.spec.errors import Problem, SpecError, UsageError, did_you_mean
from edgesparse.spec.pipeline import Pipeline
from edgesparse.spec.reading.document import Document, Location, parse_document, read_document
from edgesparse.spec.reading.problems import pipeline_problems
from edgesparse.spec.sparsify import METHODS

Spec = TypeVar("Spec", bound=BaseModel)
DEVICES = "devices"
"""Where a project's device files are."""
PUBLISHED = "published"
"""The file in devices/ with published figures of real boards."""
RENAMED: dict[str, tuple[str, ...]] = {
    "accuracy_samples": ("test_samples",),
    "at_once": ("parallel_trials",),
    "aware": ("qat",),
    "cluster": ("weight_sharing",),
    "densities": ("distribution",),
    "fraction": ("drop_fraction",),
    "limits": ("constraints",),
    "max_ratio": ("max_pruning_ratio",),
    "memory": ("memory_mib",),
    "multiple": ("round_to",),
    "runtime": ("install",),
    "samples": ("calibration_samples", "golden_samples"),
    "settle_batch_norm": ("recalibrate_batch_norm",),
    "several_subgraphs": ("multiple_subgraphs",),
    "swap": ("to_relu",),
    "warm_up": ("warmup_epochs",),
    "weight": ("penalty_weight",),
    "weights": ("loss_weights",),
}
"""Keys and methods of earlier drafts, and their names today: the one that the mapping takes."""
LOCAL_DEVICE = """\
# yaml-language-server: $schema=schema.json
name: local
description: this machine
connect:
  local: {}
runtimes:
  # tflite-runtime has no wheels for Python 3.12 and later.
  - {name: tflite-runtime, optional: true}
  - ai-edge-litert
"""


@dataclass(frozen=True)
class Loaded(Generic[Spec]):
    """A checked spec and the file it came from."""

    spec: Spec
    document: Document

    @property
    def path(self) -> Path:
        return Path(self.document.path)

    @property
    def folder(self) -> Path:
        """What references in the file are relative to."""
        return self.document.folder


def load_pipeline(
    pipeline: str | Path | Loaded[Pipeline], environment: Mapping[str, str] | None = None
) -> Loaded[Pipeline]:
    """Load a pipeline file; what was loaded already is returned as it is.

    Raises UsageError, or SpecError with every mistake in the file.
    """
    if isinstance(pipeline, Loaded):
        return pipeline
    return _load(read_document(Path(pipeline), environment), Pipeline, pipeline_problems)


def load_device(path: Path, environment: Mapping[str, str] | None = None) -> Loaded[Device]:
    """Load a device file. Raises UsageError or SpecError."""
    return _load(read_document(path, environment), Device, _no_problems)


def parse_pipeline(text: str, name: str = "pipeline.yaml") -> Loaded[Pipeline]:
    """Load a pipeline from text; references are looked up beside `name`."""
    return _load(parse_document(text, name), Pipeline, pipeline_problems)


def parse_device(text: str, name: str = "device.yaml") -> Loaded[Device]:
    """Load a device from text."""
    return _load(parse_document(text, name), Device, _no_problems)


def load_device_or_group(path: Path) -> Loaded[Device] | Loaded[Group]:
    """Load a file from devices/: a group is known by its `devices`."""
    document = read_document(path)
    if "devices" in document.value:
        return _load(document, Group, _no_problems)
    return _load(document, Device, _no_problems)


def find_device(device: str | Path | Device, project: Path) -> Device:
    """The device file of that name in the project's devices/, or at that path."""
    found = find_devices([device], project)
    if len(found) != 1:
        raise UsageError(f"{device} is a group of devices; name one of them")
    return found[0]


def find_devices(
    names: str | Path | Device | Sequence[str | Path | Device], project: Path
) -> list[Device]:
    """Every device once, those of a group too; two files must not share a name."""
    devices: dict[Path, Device] = {}
    for name in [names] if isinstance(names, str | Path | Device) else names:
        devices |= {Path(name.name): name} if isinstance(name, Device) else _find(name, project)
    seen: set[str] = set()
    for device in devices.values():
        if device.name in seen:
            raise UsageError(f"two device files are named {device.name!r}; rename one")
        seen.add(device.name)
    return list(devices.values())


def files_of_devices(folder: Path) -> list[Path]:
    """The files of a folder of devices; what is published of boards is none."""
    return [path for path in sorted(folder.glob("*.yaml")) if path.stem != PUBLISHED]


def _find(name: str | Path, project: Path) -> dict[Path, Device]:
    """A device, or the devices of a group, by file."""
    folder = project / DEVICES
    is_path = isinstance(name, Path) or name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else folder / f"{name}.yaml"
    if path.is_file() or is_path:
        spec = load_device_or_group(path).spec
        if isinstance(spec, Group):
            files = [path.parent / f"{member}.yaml" for member in spec.devices]
            return {file.resolve(): load_device(file).spec for file in files}
        return {path.resolve(): spec}
    if name == "local":  # Works anywhere, also without a devices folder.
        return {path: parse_device(LOCAL_DEVICE).spec}
    known = [*(p.stem for p in files_of_devices(folder)), "local"]
    raise UsageError(f"no device file {path}{did_you_mean(str(name), known)}")


def load_any(path: Path) -> Loaded[Pipeline] | Loaded[Device] | Loaded[Group]:
    """Load a file of any kind: a device file is known by its `connect`."""
    document = read_document(path)
    if "devices" in document.value:
        return _load(document, Group, _no_problems)
    if "connect" in document.value or "runtimes" in document.value:
        return _load(document, Device, _no_problems)
    return _load(document, Pipeline, pipeline_problems)


def _load(
    document: Document, model: type[Spec], more: Callable[[Spec, Document], list[Problem]]
) -> Loaded[Spec]:
    try:
        spec = model.model_validate(document.value)
    except ValidationError as error:
        raise SpecError(_problem(document, model, e) for e in error.errors()) from None
    # Only of a file whose every value is right: else one mistake would be told twice.
    problems = more(spec, document)
    if problems:
        raise SpecError(problems)
    return Loaded(spec, document)


def _no_problems(_: BaseModel, __: Document) -> list[Problem]:
    return []


def _problem(document: Document, model: type[BaseModel], error: Any) -> Problem:
    """Turn one of pydantic's errors into a line of ours."""
    location, candidates = _follow(model, error["loc"], document)
    kind, context, given = error["type"], error.get("ctx", {}), error["input"]
    if isinstance(given, str | int | float):
        own = document.templates.get(location)
        given = own or document.expanded.get(str(given), given)
    key = False
    if kind == "extra_forbidden":
        word = str(location[-1])
        known = {name for found in candidates for name in found.model_fields}
        # A key that is already there is no help to somebody who misspelt another.
        known -= {str(k[-1]) for k in document.keys if k[:-1] == location[:-1]} - {word}
        message, key = f"unknown key {_unknown(word, known)}", True
    elif kind == "missing":
        word, location, key = str(location[-1]), location[:-1], True
        message = f"the key {word!r} is missing"
    elif kind == "literal_error":
        known = {
            choice.strip("'") for choice in context["expected"].replace(" or ", ", ").split(", ")
        }
        message = f"{_shown(given)} is not possible{did_you_mean(str(given), known)}"
    elif kind.startswith("union_tag"):
        tag, location = (
            given.get("method") if isinstance(given, dict) else None,
            (*location, "method"),
        )
        message = (
            f"unknown method {_unknown(tag, METHODS)}"
            if isinstance(tag, str)
            else "a mapping with 'method' was expected"
        )
    elif kind == "string_pattern_mismatch" and context.get("pattern", "").startswith("^[a-z0-9]["):
        message = f"{str(given)[:70]!r} is no name: lower-case letters, digits, '.', '_' and '-'"
        key = location[-1:] != ("name",)
    elif kind == "string_pattern_mismatch":
        # A regular expression tells nobody what is wrong; letters, digits and . _ - always fit.
        where = next((str(p) for p in reversed(error["loc"]) if p != "[key]"), "")
        message = f"{str(given)[:70]!r} cannot be here ({where}): it is empty or has a character "
        message += "that does not belong there, such as a space, a quote or a leading '-'"
    elif kind == "string_type":
        message = f"text was expected, not {_shown(given)}; put it in quotes"
    elif kind in ("model_type", "dict_type", "model_attributes_type"):
        message = f"a mapping (key: value) was expected, not {_shown(given)}"
    elif kind == "list_type":
        message = f"a list was expected, not {_shown(given)}"
    else:
        message = error["msg"][:1].lower() + error["msg"][1:]
        if isinstance(given, str | int | float):
            message += f", not {_shown(given)}"
    return document.problem(location, message, key=key)


def _unknown(word: str, valid: Iterable[str]) -> str:
    """The word in quotes, and what to write instead: its new name, or the nearest valid one."""
    for name in RENAMED.get(word, ()):
        if name in valid:
            return f"{word!r}; it is now called {name!r}"
    return f"{word!r}{did_you_mean(word, valid)}"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float) else type(value).__name__
    return {"NoneType": "nothing", "dict": "a mapping", "list": "a list"}.get(text, text[:60])


def _follow(
    model: type[BaseModel], loc: tuple[int | str, ...], document: Document
) -> tuple[Location, list[type[BaseModel]]]:
    """The location in the file that pydantic's `loc` means, and the models that stand around it.

    Pydantic mixes names of union members and "[key]" into `loc`; what the file does not have and
    no model knows is left out.
    """
    kept: list[str | int] = []
    around: list[Any] = [model]
    parents: list[type[BaseModel]] = [model]
    for i, part in enumerate(loc):
        following = [t for a in around for t in _step(a, part)]
        known = following or (*kept, part) in document.keys or (*kept, part) in document.values
        if part == "[key]" or str(part).startswith("|"):
            continue
        if isinstance(part, int) and (*kept, part) not in document.values:
            around = following  # One mapping that stands for a list of one.
            continue
        if known or (i == len(loc) - 1 and not _is_tag(around, part)):
            kept.append(part)
            parents = [a for a in around if isinstance(a, type) and issubclass(a, BaseModel)]
            around = following
        else:
            around = [a for a in around if _is_tag([a], part)] or around
    return tuple(kept), parents


def _is_tag(around: list[Any], part: int | str) -> bool:
    """Whether `part` names one of several models rather than something in the file."""
    for candidate in around:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            method = candidate.model_fields.get("method")
            if method is not None:
                choices = typing.get_args(method.annotation)
                if part in choices or (part == "ref" and not choices):
                    return True
    return False


def _step(annotation: Any, part: int | str) -> list[Any]:
    """The types found below `annotation` when going on to `part`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        found = annotation.model_fields.get(str(part))
        return _members(found.annotation) if found is not None else []
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict and isinstance(part, str):
        return _members(args[1])
    if origin is list and isinstance(part, int):
        return _members(args[0])
    return []


def _members(annotation: Any) -> list[Any]:
    """The members of a union, with Annotated taken off."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [m for a in typing.get_args(annotation) for m in _members(a)]
    return [annotation]
