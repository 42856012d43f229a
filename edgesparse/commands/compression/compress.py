"""The compress command: compress a trained model for a device, without its training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgesparse.commands.compression.keras_models import compress_keras
from edgesparse.commands.compression.result import Compressed, Deadline
from edgesparse.commands.compression.tflite_files import compress_file
from edgesparse.commands.exchange import tflite_and_samples
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.graph import events
from edgesparse.spec.code.saved_models import CONVERTED, TFLITE
from edgesparse.spec.code.torch_models import shapes_of
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Pipeline
from edgesparse.spec.reading.load import Loaded, load_pipeline
from edgesparse.tflite.exchange.networks import is_reference

_YAML = (".yaml", ".yml")


def compress(
    project: Resources,
    model: str | Path,
    data: str | Path,
    device: DeviceName = "local",
    output: str | Path = "compressed.tflite",
    *,
    sparsity: float | None = None,
    max_error: float = 0.02,
    minutes: float | None = None,
    quick: bool = False,
    weights: str | Path | None = None,
    input_shapes: Sequence[str] = (),
    builder: str | None = None,
) -> Compressed:
    """Make a trained model smaller and faster for a device, without training it.

    A Keras model is pruned with reconstruction, quantized and converted in every way that can pay
    on the device; the fastest variant that keeps its metric is written: with labels see
    `measure.selection` (at most 2 points lost, and nothing beyond the interval), without them what
    differs from the model's own outputs is at most `max_error`. A float .tflite file is quantized
    (with the extra `quantizer`) and pruned within `max_error`, and stored in the format that the
    device exploits. Dense files come first: `output` is written as soon as one of them is measured,
    and again for a better one.

    Args:
        model: a .keras or .h5 file; a SavedModel folder, which is converted, quantized and then
            pruned as a .tflite file; a .tflite file; or a .pt2 or .onnx file, which is converted to
            one, as FILE.py:FUNCTION is, which returns a torch.nn.Module; or a pipeline with a
            torch model.
        data: for a Keras model a .npz with x and y; a .npz of samples alone (x, or arrays by the
            inputs' names) or a .npy: the model's own outputs are the labels then; or a pipeline
            file with data. For a .tflite file a .npy or .npz of samples, for
            one that is converted as the original takes them.
        sparsity: share of zeros; default: 0.7, and for .tflite the first of SPARSITIES within
            `max_error`.
        max_error: largest loss of an output of a .tflite file, at the upper end of its interval
            where anything is lost: 0 for the original's answers, 1 for the best constant answer;
            of a Keras model without labels, the largest loss of accuracy, r2 or f1.
        minutes: no level of zeros is started, or goes on for a .tflite file, after this time.
        weights: of FILE.py:FUNCTION: its state_dict.
        input_shapes: of FILE.py:FUNCTION: shapes of its inputs, as "1x3x224x224" or "1x128:int64".
        builder: of an .h5 file with weights only: FILE.py:FUNCTION that builds the Keras model.

    Raises:
        UsageError: a file is wrong; nothing was run.
        EdgesparseError: no variant is within the limit.
    """
    if Path(model).suffix in _YAML:
        if weights is not None or input_shapes:
            raise UsageError(
                f"{model} names weights and shapes; remove --weights and --input-shape"
            )
        model, weights, input_shapes = _network_of(load_pipeline(model))
    source, target = Path(model), Path(output)
    if not is_reference(model) and not source.exists():
        raise UsageError(f"{source}: no such file")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent}: no such folder")
    if target.is_dir() or not os.access(target.parent, os.W_OK):
        raise UsageError(f"{target}: cannot be written; name another file with -o")
    if builder is not None and source.suffix not in (".h5", ".hdf5"):
        raise UsageError(f"--builder {builder} needs an .h5 file of weights, not {source}")
    if builder is not None and not is_reference(builder):
        raise UsageError(f"--builder {builder}: write my_model.py:build, its file and function")
    is_file = is_reference(model) or source.suffix in (TFLITE, *CONVERTED)
    if is_file and Path(data).suffix in _YAML:
        raise UsageError(f"{data}: {source} needs --data as a .npy or .npz of samples")
    deadline, before = Deadline(minutes), _written_at(target)
    try:
        file, samples = tflite_and_samples(project, model, Path(data), weights, input_shapes)
        if file.suffix == TFLITE:
            compressed = compress_file(
                project, file, samples, device, target, sparsity, max_error, deadline, quick=quick
            )
            return replace(compressed, source=str(source))
        return compress_keras(
            project, source, Path(data), device, target, sparsity, max_error, deadline, quick=quick,
            builder=builder,
        )  # fmt: skip
    except KeyboardInterrupt:
        if _written_at(target) != before:
            project.listener(events.Note(f"interrupted: {target} is the best file so far"))
        raise


def _network_of(pipeline: Loaded[Pipeline]) -> tuple[str, Path | None, list[str]]:
    """Return a pipeline's PyTorch network, its weights and the shapes of its inputs."""
    model, folder = pipeline.spec.model, pipeline.folder
    if model.torch is None:
        raise UsageError(
            f"{pipeline.path}: its model is not a torch one; compress takes its file: a .keras, "
            f".h5, .tflite, .pt2 or .onnx; or type: edgesparse deploy {pipeline.path}"
        )
    weights = folder / model.weights if model.weights else None
    return str(folder / model.torch), weights, shapes_of(model)


def _written_at(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None
