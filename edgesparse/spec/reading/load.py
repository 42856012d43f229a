"""Loads YAML files into checked pipelines and devices, with all mistakes reported at once."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from edgesparse.spec.device import Device, Group, device_at
from edgesparse.spec.errors import Problem, SpecError, UsageError, did_you_mean
from edgesparse.spec.pipeline import Pipeline
from edgesparse.spec.reading.document import Document, Location, parse_document, read_document
from edgesparse.spec.reading.problems import device_problems, pipeline_problems
from edgesparse.spec.sparsify import METHODS

Spec = TypeVar("Spec", bound=BaseModel)
DEVICES = "devices"
"""Folder of a project's device files."""
PUBLISHED = "published"
"""The file in devices/ with published figures of real boards."""
RENAMED: dict[str, tuple[str, ...]] = {
    "accuracy_samples": ("test_samples",),
    "at_once": ("parallel_trials",),
    "aware": ("qat",),
    "cluster": ("weight-sharing",),
    "densities": ("distribution",),
    "fraction": ("drop_fraction",),
    "limits": ("constraints",),
    "max_ratio": ("max_pruning_ratio",),
    "memory": ("memory_mib",),
    "multiple": ("round_to",),
    "runtime": ("install",),
    "scope": ("distribution",),
    "samples": ("calibration_samples", "golden_samples"),
    "settle_batch_norm": ("recalibrate_batch_norm",),
    "several_subgraphs": ("multiple_subgraphs",),
    "swap": ("to_relu",),
    "warm_up": ("warmup_epochs",),
    "weight": ("penalty_weight",),
    "weight_sharing": ("weight-sharing",),
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
        """Base of the file's references."""
        return self.document.folder


def load_pipeline(
    pipeline: str | Path | Loaded[Pipeline], environment: Mapping[str, str] | None = None
) -> Loaded[Pipeline]:
    """Load a pipeline file; a loaded pipeline is returned unchanged.

    Raises:
        UsageError: the file cannot be read.
        SpecError: it has mistakes; all are listed.
    """
    if isinstance(pipeline, Loaded):
        return pipeline
    return _load(read_document(Path(pipeline), environment), Pipeline, pipeline_problems)


def load_device(path: Path, environment: Mapping[str, str] | None = None) -> Loaded[Device]:
    """Load a device file. Raises UsageError or SpecError."""
    return _load(read_document(path, environment), Device, device_problems)


def parse_pipeline(text: str, name: str = "pipeline.yaml") -> Loaded[Pipeline]:
    """Load a pipeline from text; references are relative to the folder of `name`."""
    return _load(parse_document(text, name), Pipeline, pipeline_problems)


def parse_device(text: str, name: str = "device.yaml") -> Loaded[Device]:
    """Load a device from text."""
    return _load(parse_document(text, name), Device, device_problems)


def load_device_or_group(path: Path) -> Loaded[Device] | Loaded[Group]:
    """Load a file from devices/: one with the key `devices` is a group."""
    document = read_document(path)
    if "devices" in document.value:
        return _load(document, Group, _no_problems)
    return _load(document, Device, device_problems)


def find_device(device: str | Path | Device, project: Path) -> Device:
    """Load the device file of that name in the project's devices/, or at that path; or return the
    device at an address, USER@HOST[:PORT].

    Raises:
        UsageError: the file is missing, or a group.
        SpecError: it has mistakes; all are listed.
    """
    matches = find_devices([device], project)
    if len(matches) != 1:
        raise UsageError(f"{device} is a group of {len(matches)} devices; name a single device")
    return matches[0]


def find_devices(
    names: str | Path | Device | Sequence[str | Path | Device], project: Path
) -> list[Device]:
    """Load devices and the members of groups, each once.

    Raises:
        UsageError: a file is missing, or two files have the same device name.
        SpecError: a file has mistakes; all are listed.
    """
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
    """Return the device files of a folder; not PUBLISHED, which has figures only."""
    return [path for path in sorted(folder.glob("*.yaml")) if path.stem != PUBLISHED]


def _find(name: str | Path, project: Path) -> dict[Path, Device]:
    """Load a device, or the devices of a group, by file or address."""
    folder = project / DEVICES
    is_path = isinstance(name, Path) or name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else folder / f"{name}.yaml"
    if path.is_file() or is_path:
        spec = load_device_or_group(path).spec
        if isinstance(spec, Group):
            files = [path.parent / f"{member}.yaml" for member in spec.devices]
            return {file.resolve(): load_device(file).spec for file in files}
        return {path.resolve(): spec}
    if "@" in str(name):  # Without a file.
        return {path: device_at(str(name))}
    if name == "local":  # Without a devices folder, too.
        return {path: parse_device(LOCAL_DEVICE).spec}
    names = [*(p.stem for p in files_of_devices(folder)), "local"]
    raise UsageError(f"no device file {path}{did_you_mean(str(name), names)}")


def load_any(path: Path) -> Loaded[Pipeline] | Loaded[Device] | Loaded[Group]:
    """Load a file of any kind: one with the key `connect` or `runtimes` is a device."""
    document = read_document(path)
    if "devices" in document.value:
        return _load(document, Group, _no_problems)
    if "connect" in document.value or "runtimes" in document.value:
        return _load(document, Device, device_problems)
    return _load(document, Pipeline, pipeline_problems)


def _load(
    document: Document, model: type[Spec], more: Callable[[Spec, Document], list[Problem]]
) -> Loaded[Spec]:
    try:
        spec = model.model_validate(document.value)
    except ValidationError as error:
        raise SpecError(_problem(document, model, e) for e in error.errors()) from None
    # Only where every value is valid: else a mistake would be reported twice.
    problems = more(spec, document)
    if problems:
        raise SpecError(problems)
    return Loaded(spec, document)


def _no_problems(_: BaseModel, __: Document) -> list[Problem]:
    return []


def _problem(document: Document, model: type[BaseModel], error: Any) -> Problem:
    """Convert a pydantic error to a problem with its position in the file."""
    location, candidates = _follow(model, error["loc"], document)
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if isinstance(value, str | int | float):
        template = document.templates.get(location)
        value = template or document.expanded.get(str(value), value)
    key = False
    if kind == "extra_forbidden":
        word = str(location[-1])
        choices = {name for model_ in candidates for name in model_.model_fields}
        # A key that the mapping already has is not what a misspelt one was meant to be.
        choices -= {str(k[-1]) for k in document.keys if k[:-1] == location[:-1]} - {word}
        message, key = f"unknown key {_unknown(word, choices)}", True
    elif kind == "missing":
        word, location, key = str(location[-1]), location[:-1], True
        message = f"missing key {word!r}"
    elif kind == "literal_error":
        choices = {
            choice.strip("'") for choice in context["expected"].replace(" or ", ", ").split(", ")
        }
        message = f"invalid value {_shown(value)}{did_you_mean(str(value), choices)}"
    elif kind.startswith("union_tag"):
        tag, location = (
            value.get("method") if isinstance(value, dict) else None,
            (*location, "method"),
        )
        message = (
            f"unknown method {_unknown(tag, METHODS)}"
            if isinstance(tag, str)
            else "expected a mapping with 'method'"
        )
    elif kind == "string_pattern_mismatch" and context.get("pattern", "").startswith("^[a-z0-9]["):
        message = f"invalid name {str(value)[:70]!r}; use lower-case letters, digits, '.', '_', '-'"
        key = location[-1:] != ("name",)
    elif kind == "string_pattern_mismatch":
        # Not the regular expression, which few can read; letters, digits and . _ - always match.
        where = next((str(p) for p in reversed(error["loc"]) if p != "[key]"), "")
        message = f"invalid {where} {str(value)[:70]!r}: empty, or with a character that is not "
        message += "allowed, such as a space, a quote or a leading '-'"
    elif kind == "string_type":
        message = f"expected text, not {_shown(value)}; put it in quotes"
    elif kind in ("model_type", "dict_type", "model_attributes_type"):
        message = f"expected a mapping (key: value), not {_shown(value)}"
    elif kind == "list_type":
        message = f"expected a list, not {_shown(value)}"
    else:
        message = error["msg"][:1].lower() + error["msg"][1:]
        if isinstance(value, str | int | float):
            message += f", not {_shown(value)}"
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
    """Return the location in the file of pydantic's `loc`, and the models that contain it.

    Pydantic mixes names of union members and "[key]" into `loc`; parts that neither the file nor a
    model has are dropped.
    """
    kept: list[str | int] = []
    around: list[Any] = [model]
    parents: list[type[BaseModel]] = [model]
    for i, part in enumerate(loc):
        following = [t for a in around for t in _step(a, part)]
        is_known = following or (*kept, part) in document.keys or (*kept, part) in document.values
        if part == "[key]" or str(part).startswith("|"):
            continue
        if isinstance(part, int) and (*kept, part) not in document.values:
            around = following  # A mapping that stands for a list with one item.
            continue
        if is_known or (i == len(loc) - 1 and not _is_tag(around, part)):
            kept.append(part)
            parents = [a for a in around if isinstance(a, type) and issubclass(a, BaseModel)]
            around = following
        else:
            around = [a for a in around if _is_tag([a], part)] or around
    return tuple(kept), parents


def _is_tag(around: list[Any], part: int | str) -> bool:
    """Return True where `part` is the tag of a model rather than a key in the file."""
    for candidate in around:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            method = candidate.model_fields.get("method")
            if method is not None:
                choices = typing.get_args(method.annotation)
                if part in choices or (part == "ref" and not choices):
                    return True
    return False


def _step(annotation: Any, part: int | str) -> list[Any]:
    """Return the types of `annotation` at the key or index `part`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return _members(field.annotation) if field is not None else []
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict and isinstance(part, str):
        return _members(args[1])
    if origin is list and isinstance(part, int):
        return _members(args[0])
    return []


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union, without Annotated."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [m for a in typing.get_args(annotation) for m in _members(a)]
    return [annotation]
