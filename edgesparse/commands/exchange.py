"""Models from PyTorch and ONNX, converted for the commands that take .tflite files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgesparse.commands.fleet.resources import Resources
from edgesparse.graph import events
from edgesparse.spec.code.torch_models import shapes_of
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import ModelSource, Pipeline
from edgesparse.spec.reading.load import Loaded
from edgesparse.tflite.exchange.convert import Converted, convert, converted_samples
from edgesparse.tflite.exchange.environment import ENVIRONMENTS, Format
from edgesparse.tflite.exchange.formats import format_of
from edgesparse.tflite.exchange.networks import Network, is_reference, network
from edgesparse.tflite.post_training import quantize


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


def with_tflite_models(project: Resources, loaded: Loaded[Pipeline]) -> Loaded[Pipeline]:
    """Return a pipeline with the .tflite files that its PyTorch networks were converted to.

    Raises:
        UsageError: a network cannot be converted, or a converter or the quantizer is missing.
        EdgesparseError: the conversion changes its answers.
    """
    pipeline = loaded.spec
    variants = {k: v for k, v in pipeline.variants.items() if v.model and v.model.torch}
    if pipeline.model.torch is None and not variants:
        return loaded
    schemes = {
        variant.quantize.scheme
        for variant in pipeline.variants.values()
        if pipeline.for_variant(variant).model.torch
    } - {"f32", "f16"}
    if schemes and not quantize.is_available():
        raise UsageError(
            f"{loaded.path}: {', '.join(sorted(schemes))} of a torch model: {quantize.INSTALL}"
        )

    def file_of(model: ModelSource) -> ModelSource:
        if model.torch is None:
            return model
        weights = loaded.folder / model.weights if model.weights else None
        file = tflite_file(project, loaded.folder / model.torch, weights, shapes_of(model))
        # The key of a stage has it: relative, as paths of a pipeline are.
        return ModelSource(ref=os.path.relpath(file, loaded.folder))

    changed = {
        name: variant.model_copy(update={"model": file_of(variant.model)})
        for name, variant in variants.items()
        if variant.model is not None
    }
    updated: dict[str, Any] = {"variants": {**pipeline.variants, **changed}}
    if pipeline.model.torch is not None:
        updated["model"] = file_of(pipeline.model)
        updated["train"] = pipeline.train.model_copy(update={"epochs": 0})
    return replace(loaded, spec=pipeline.model_copy(update=updated))


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
        note += "; without weights of its own they are those that the function sets"
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
