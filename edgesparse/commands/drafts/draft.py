"""Pipeline and device files for a model and data that a user has, and what they assume."""

from __future__ import annotations

import csv
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from edgesparse.commands.drafts.examine import Examined, Request, examine_in_child
from edgesparse.spec.code.saved_models import CONVERTED, SUFFIXES, TFLITE
from edgesparse.spec.code.sources import bounded, functions_of
from edgesparse.spec.device import device_at
from edgesparse.spec.errors import UsageError
from edgesparse.spec.reading.load import parse_device
from edgesparse.spec.safe.temporary_folders import temporary_folder
from edgesparse.spec.safe.text import clean

TABLES = (".csv", ".tsv")
_TORCH = re.compile(r"^\s*(?:import|from)\s+torch\b", re.MULTILINE)
_KERAS = re.compile(r"^\s*(?:import|from)\s+(?:tf_)?(?:keras|tensorflow)\b", re.MULTILINE)
BUILDERS = ("build", "build_model", "create_model", "make_model", "get_model", "model")
"""Names of functions that are taken to build a script's model."""
EXPLAIN_BUILDER = """\
{path} has no function that returns its model; move the lines that build it into one:
    def build():
        ...            # the lines that build the model
        return model
and name it: edgesparse init --model {path}:build --data {data}"""


@dataclass(frozen=True)
class Draft:
    """Files by their path in the project, and what they assume, a line each."""

    name: str
    device: str
    contents: Mapping[str, str]
    assumptions: tuple[str, ...]


def draft(
    folder: Path, model: str, data: Path, *, device: str = "local", target: str | None = None
) -> Draft:
    """Draft the files of a pipeline for a model and its data.

    Args:
        folder: the project.
        model: a .keras or .h5 file, a SavedModel folder, or FILE.py:FUNCTION that builds it.
        data: a folder with a folder of images per class, a .csv file, or a .npz with x and y.
        device: the name of a file in devices/, or USER@HOST[:PORT], for which one is drafted.
        target: of a .csv file, the column to predict; default: its last.

    Raises:
        UsageError: a file is of another kind, or model and data do not fit each other.
    """
    base = folder / "pipelines"
    source, trained, stem = _model_source(model, base, data)
    name = _name(stem)
    sources, sized, lines = _data_sources(data, base, target)
    with temporary_folder() as temporary:
        # Absolute: the pipeline's folder need not exist yet.
        absolute = {**source, "ref": _absolute(source["ref"], base)}
        # What an untrained model answers tells nothing about the scale.
        tried = [
            {**s, "args": {**s["args"], "path": str(data.absolute())}}
            for s in (sources if trained else sources[:1])
        ]
        examined = examine_in_child(Request(absolute, tried, sized), temporary)
    examined.source["args"]["path"] = _relative(data, base)
    saved_model = trained and Path(model).is_dir()
    text = _pipeline(name, source, examined, trained=trained, saved_model=saved_model)
    contents = {f"pipelines/{name}.yaml": text}
    assumptions = _assumptions(examined, lines, trained=trained)
    device_name = device
    if "@" in device:
        device_name = device_at(device).name
        contents[f"devices/{device_name}.yaml"] = _device(device)
        assumptions.append(
            f"device: {device} by ssh, as the `ssh` command reaches it; 'edgesparse device check "
            f"{device_name}' tells what it lacks"
        )
    return Draft(name, device_name, contents, tuple(assumptions))


def _name(stem: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("._-")[:64] or "model"


def _relative(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path.absolute(), base.absolute())).as_posix()


def _absolute(ref: str, base: Path) -> str:
    return os.path.normpath(base.absolute() / ref)


def _model_source(model: str, base: Path, data: Path) -> tuple[dict[str, Any], bool, str]:
    """Return a pipeline's model, whether it is trained, and the stem of its file."""
    file, _, function = model.partition(".py:")
    path = Path(f"{file}.py" if function else model)
    if not path.exists():
        raise UsageError(f"{path}: no such file")
    require_layers(model, data)
    if path.suffix == ".py":
        functions = functions_of(path)
        function = function or next((name for name in BUILDERS if name in functions), "")
        if function not in functions:
            raise UsageError(EXPLAIN_BUILDER.format(path=path, data=data))
        return {"ref": f"{_relative(path, base)}:{function}"}, False, path.stem
    if not path.is_dir() and path.suffix not in SUFFIXES:
        raise UsageError(
            f"{path}: is not a saved Keras model; name a .keras or .h5 file, a SavedModel folder "
            "or FILE.py:FUNCTION"
        )
    return {"ref": _relative(path, base)}, True, path.stem


def require_layers(model: str, data: Path | None) -> None:
    """Raise UsageError for a model without layers to train, with the commands that take it."""
    file, _, function = model.partition(".py:")
    path = Path(f"{file}.py" if function else model)
    option = f"--data {data or 'SAMPLES.npz'}"
    if path.suffix in (TFLITE, *CONVERTED) and path.is_file():
        raise UsageError(
            f"{path}: {path.suffix} files need no pipeline; type 'edgesparse compress {path} "
            f"{option}' or 'edgesparse bench {path}'"
        )
    text = bounded(path).decode(errors="replace") if path.suffix == ".py" and path.is_file() else ""
    if _TORCH.search(text) and not _KERAS.search(text):
        words = f"{path}:{function or 'build'} --weights w.pt --input-shape 1x3x224x224"
        raise UsageError(
            f"{path}: a PyTorch network needs no pipeline; type 'edgesparse compress {words} "
            f"{option}' or 'edgesparse bench {words}'; with your metric: 'edgesparse docs pytorch'"
        )


def _data_sources(
    data: Path, base: Path, target: str | None
) -> tuple[list[dict[str, Any]], bool, list[str]]:
    """Return the ways to read data, whether they take the model's input shape, and assumptions."""
    args: dict[str, Any] = {"path": _relative(data, base)}
    if not (data.is_dir() or data.is_file()):  # A FIFO would block.
        raise UsageError(f"{data}: no such file or folder")
    if data.is_dir():
        scales = [{}, {"scale": 1.0}]
        return [{"name": "image-folder", "args": {**args, **s}} for s in scales], True, []
    if data.suffix in TABLES:
        separator = {"separator": "\t"} if data.suffix == ".tsv" else {}
        target, lines = _target_column(data, "\t" if separator else ",", target)
        args = {**args, "target": target, **separator}
        options: list[dict[str, Any]] = [{}, {"standardize": False}]
        return [{"name": "csv", "args": {**args, **option}} for option in options], False, lines
    if data.suffix == ".npz":
        options = [{}, {"scale": 255.0}] if _has_bytes(data) else [{}]
        return [{"name": "npz", "args": {**args, **option}} for option in options], False, []
    if data.suffix == ".npy":
        raise UsageError(
            f"{data} has samples without labels; for a trained model type: edgesparse compress "
            f"MODEL --data {data}; to train, save both in Python: numpy.savez('{data.stem}.npz', "
            "x=..., y=...)"
        )
    raise UsageError(
        f"{data}: name a folder with a folder of images per class, a .csv file, or a .npz with x "
        "and y; samples without labels serve 'edgesparse compress MODEL --data FILE'"
    )


def columns_of(data: Path) -> list[str]:
    """Return the column names of a .csv or .tsv file; empty where it cannot be read."""
    try:
        with data.open(newline="", encoding="utf-8-sig") as file:
            first = next(csv.reader(file, delimiter="\t" if data.suffix == ".tsv" else ","), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    return [name.strip() for name in first]


def _target_column(data: Path, separator: str, target: str | None) -> tuple[str, list[str]]:
    if target is not None:
        return target, []
    names = columns_of(data)
    if not names:
        raise UsageError(f"{data}: has no line of column names")
    return names[-1], [f"target: column {clean(names[-1])!r}, the last; --target names another"]


def _has_bytes(data: Path) -> bool:
    """Return True where samples are probably pixels of 0 to 255."""
    try:
        with np.load(data, allow_pickle=False) as stored:
            x = next((stored[name] for name in ("x", "x_train") if name in stored.files), None)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError):
        raise UsageError(f"{data}: is not a .npz of plain arrays") from None
    if x is None or x.size == 0 or x.dtype.kind not in "fiu":
        return False
    return bool(x.dtype == np.uint8 or 1 < x.max() <= 255)


def _pipeline(
    name: str,
    source: Mapping[str, Any],
    examined: Examined,
    *,
    trained: bool,
    saved_model: bool,
) -> str:
    keys: dict[str, Any] = {"name": name, "data": examined.source, "model": dict(source)}
    comment = ""
    if saved_model:
        keys["train"] = {"epochs": 0}
        keys["variants"] = {"dense-f32": {}, "dense-int8": {"quantize": "int8"}}
        comment = "# A SavedModel is converted as it is; zeros need a .keras or .h5 file.\n"
    elif trained:
        keys["train"] = {"epochs": 0}
        keys["variants"] = "auto"
        comment = (
            "# It is trained: epochs: 0 keeps its weights, and zeros come without training. With\n"
            "# epochs: 10 variants are fine-tuned on the data, which takes longer and loses less.\n"
        )
    else:
        keys["train"] = {"epochs": 20, "schedule": "cosine"}
        keys["variants"] = "auto"
    head, tail = ({k: keys[k] for k in ("name", "data", "model")}, ("train", "variants"))
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    rest = yaml.safe_dump({key: keys[key] for key in tail}, sort_keys=False)
    return f"# yaml-language-server: $schema=schema.json\n{text}{comment}{rest}"


def _device(address: str) -> str:
    device = device_at(address)
    assert device.connect.ssh is not None
    ssh = device.connect.ssh.model_dump(exclude_defaults=True)
    runtimes = [r.model_dump(exclude_defaults=True) for r in device.runtimes]
    keys = {"name": device.name, "connect": {"ssh": ssh}, "runtimes": runtimes}
    text = "# yaml-language-server: $schema=schema.json\n" + yaml.safe_dump(keys, sort_keys=False)
    parse_device(text)
    return text


def _assumptions(examined: Examined, lines: list[str], *, trained: bool) -> list[str]:
    shapes = [" and ".join(map(_shape, ends)) for ends in (examined.inputs, examined.outputs)]
    result = [f"model: takes {shapes[0]}, outputs {shapes[1]}", *examined.notes, *lines]
    if examined.is_classification:
        names = ", ".join(examined.classes[:10]) + (", ..." if len(examined.classes) > 10 else "")
        result.append(
            f"task: classification; {len(examined.classes)} classes, the model's outputs in this "
            f"order: {names}"
        )
    else:
        result.append("task: inferred from the targets, which are numbers")
    scale = _scale(examined)
    if scale:
        result.append(f"scale: {scale}")
    if trained:
        result.append(_quality(examined))
    return result


def _shape(end: tuple[str, list[int | None]]) -> str:
    return f"{end[0]} [{', '.join('?' if size is None else str(size) for size in end[1])}]"


def _scale(examined: Examined) -> str:
    args, kind = examined.source["args"], examined.source["name"]
    if examined.scaled_by is not None:
        return f"pixels of 0 to 255, which layer {examined.scaled_by} scales"
    if len(examined.scores) < 2:
        return ""
    best, other = max(examined.scores), min(examined.scores)
    if kind == "csv":
        text = "columns " + ("as they are" if "standardize" in args else "standardized")
    elif kind == "npz":
        text = "samples " + ("divided by 255" if "scale" in args else "as they are")
    else:
        text = "pixels " + ("as they are" if "scale" in args else "divided by 255")
    return f"{text} ({_percent(best, examined)}, otherwise {_percent(other, examined)})"


def _percent(score: float, examined: Examined) -> str:
    return f"{score:.0%} right" if examined.is_classification else f"R2 {score:.2f}"


def _quality(examined: Examined) -> str:
    text = f"trained: {_percent(max(examined.scores), examined)} on up to 200 test samples"
    if examined.is_at_chance:
        text += (
            "; that is not better than chance: check the order of the classes and how samples are "
            "scaled"
        )
    return text
