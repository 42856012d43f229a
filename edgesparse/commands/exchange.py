"""Models from PyTorch and ONNX, converted for the commands that take .tflite files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgesparse.commands.fleet.resources import Resources
from edgesparse.graph import events
from edgesparse.spec.errors import UsageError
from edgesparse.tflite.exchange.convert import Converted, convert, converted_samples
from edgesparse.tflite.exchange.environment import ENVIRONMENTS, Format
from edgesparse.tflite.exchange.formats import format_of
from edgesparse.tflite.exchange.networks import Network, is_reference, network


def tflite_file(
    project: Resources,
    source: str | Path,
    weights: str | Path | None = None,
    input_shapes: Sequence[str] = (),
) -> Path:
    """Return a file itself, or the .tflite file that a model of PyTorch or ONNX was converted to.

    Args:
        source: a file, or FILE.py:FUNCTION that returns a torch.nn.Module.
        weights: a network's weights; None for a file.
        input_shapes: shapes of a network's inputs.

    Raises:
        UsageError: it has another format of PyTorch, or its converter is not installed.
        EdgesparseError: the conversion changes its answers.
    """
    converted = _converted(project, source, weights, input_shapes)
    return converted.path if converted else Path(source)


def tflite_and_samples(
    project: Resources,
    source: str | Path,
    samples: Path,
    weights: str | Path | None = None,
    input_shapes: Sequence[str] = (),
) -> tuple[Path, Path]:
    """Like `tflite_file`, with the samples as that file takes them."""
    converted = _converted(project, source, weights, input_shapes, samples)
    if converted is None:
        return Path(source), samples
    return converted.path, converted_samples(converted, samples)


def _converted(
    project: Resources,
    source: str | Path,
    weights: str | Path | None,
    input_shapes: Sequence[str],
    samples: Path | None = None,
) -> Converted | None:
    original = _original(source, weights, input_shapes, samples)
    kind: Format | None = "torch" if isinstance(original, Network) else format_of(original)
    if kind is None:
        return None
    ENVIRONMENTS[kind].require(str(source))
    label = f"convert {Path(source).name}"
    project.listener(events.StageStarted(label, 1, 1))
    folder = project.workspace().folder / "converted"
    used = samples if samples is not None and samples.is_file() else None
    converted = convert(original, kind, folder, used)
    project.listener(events.StageDone(label, 1, 1))
    note = f"{source}: {converted.note}"
    if isinstance(original, Network) and original.weights is None:
        note += "; without --weights its weights are those that the function sets"
    project.listener(events.Note(note))
    return converted


def _original(
    source: str | Path,
    weights: str | Path | None,
    input_shapes: Sequence[str],
    samples: Path | None,
) -> Path | Network:
    if is_reference(source):
        return network(source, weights, input_shapes, samples)
    for option, value in (("--weights", weights), ("--input-shape", " ".join(input_shapes))):
        if value:
            raise UsageError(
                f"{option} {value} needs a PyTorch network as FILE.py:FUNCTION, and {source} is a "
                f"file; remove {option}"
            )
    return Path(source)
