"""Files from PyTorch and ONNX, converted for the commands that take .tflite files."""

from __future__ import annotations

from pathlib import Path

from edgesparse.commands.fleet.resources import Resources
from edgesparse.graph import events
from edgesparse.tflite.exchange.convert import Converted, convert, converted_samples
from edgesparse.tflite.exchange.environment import ENVIRONMENTS
from edgesparse.tflite.exchange.formats import format_of


def tflite_file(project: Resources, source: Path) -> Path:
    """Return a file itself, or the .tflite file that a .pt2 or .onnx file was converted to.

    Raises:
        UsageError: it has another format of PyTorch, or its converter is not installed.
        EdgesparseError: the conversion changes its answers.
    """
    converted = _converted(project, source)
    return converted.path if converted else source


def tflite_and_samples(project: Resources, source: Path, samples: Path) -> tuple[Path, Path]:
    """Like `tflite_file`, with the samples as that file takes them."""
    converted = _converted(project, source, samples)
    if converted is None:
        return source, samples
    return converted.path, converted_samples(converted, samples)


def _converted(project: Resources, source: Path, samples: Path | None = None) -> Converted | None:
    kind = format_of(source)
    if kind is None:
        return None
    ENVIRONMENTS[kind].require(source)
    label = f"convert {source.name}"
    project.listener(events.StageStarted(label, 1, 1))
    folder = project.workspace().folder / "converted"
    used = samples if samples is not None and samples.is_file() else None
    converted = convert(source, kind, folder, used)
    project.listener(events.StageDone(label, 1, 1))
    project.listener(events.Note(f"{source}: {converted.note}"))
    return converted
