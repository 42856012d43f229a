"""The compress command: compress a trained model for a device, without its training."""

from __future__ import annotations

import os
import re
import shlex
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from edgesparse.commands.bench import bench_files
from edgesparse.commands.deploy import deploy
from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.commands.results.models import FOLDER
from edgesparse.graph import events
from edgesparse.graph.workspace import Workspace
from edgesparse.measure.results import Results
from edgesparse.measure.selection import best_row
from edgesparse.models.files.reference_outputs import label_samples_in_child
from edgesparse.spec.auto_variants import untrained_variants
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Benchmark
from edgesparse.spec.reading.load import Loaded, load_pipeline, parse_pipeline
from edgesparse.spec.safe.files import replace_bytes
from edgesparse.spec.safe.temporary import temporary_folder
from edgesparse.spec.step import Pattern
from edgesparse.tflite.format.appended import trailing_bytes
from edgesparse.tflite.format.inspect import read_model
from edgesparse.tflite.reconstruction import Reconstruction, reconstruct
from edgesparse.tflite.runtimes.compatibility import Cell, Profile
from edgesparse.tflite.runtimes.storage import store

SPARSITIES = (0.7, 0.6, 0.5, 0.4, 0.3)
"""Tried in this order until the output error is within its limit."""


@dataclass(frozen=True)
class Compressed:
    """A compressed model, written to `target`, and its measurement. `output_error` is that of a
    .tflite file, see `tflite.reconstruction`; None for a Keras model."""

    source: str
    target: str
    variant: str
    bytes_before: int
    bytes_after: int
    sparsity: float | None
    output_error: float | None
    results: Results


def compress(
    project: Resources,
    model: str | Path,
    data: str | Path,
    device: DeviceName = "local",
    output: str | Path = "compressed.tflite",
    *,
    sparsity: float | None = None,
    max_error: float = 0.02,
    quick: bool = False,
) -> Compressed:
    """Make a trained model smaller and faster for a device, without training it.

    A Keras model is pruned with reconstruction, quantized and converted in every way that can pay
    on the device; the fastest variant that loses at most a point is written. A float .tflite file
    is pruned in place within `max_error`, and stored in the format that the device exploits.

    Args:
        model: a .keras or .h5 file; a SavedModel folder, which is only converted and quantized; or
            a .tflite file.
        data: for a Keras model a .npz with x and y; a .npz of samples alone (x, or arrays by the
            inputs' names) or a .npy: the model's own outputs are the labels then; or a pipeline
            file with data. For a .tflite file a .npy or .npz of samples.
        sparsity: share of zeros; default: 0.7, and for .tflite the first of SPARSITIES within
            `max_error`.
        max_error: largest output error of a .tflite file: the mean difference to the original's
            outputs as a share of their range.

    Raises:
        UsageError: a file is wrong; nothing was run.
        EdgesparseError: no variant is within the limit.
    """
    source, target = Path(model), Path(output)
    if not source.exists():
        raise UsageError(f"{source}: no such file")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent}: no such folder")
    if target.is_dir() or not os.access(target.parent, os.W_OK):
        raise UsageError(f"{target}: cannot be written; name another file with -o")
    if source.suffix == ".tflite":
        return _file(project, source, Path(data), device, target, sparsity, max_error, quick)
    return _keras(project, source, Path(data), device, target, sparsity or 0.7, quick)


def _file(
    project: Resources,
    source: Path,
    data: Path,
    device: DeviceName,
    target: Path,
    sparsity: float | None,
    max_error: float,
    quick: bool,
) -> Compressed:
    content = read_model(source)
    with project.target(device) as connected:
        runtime_profiles = profiles(connected, project.workspace())
    if not runtime_profiles:
        raise EdgesparseError(f"device {connected.device.name} has no usable runtime")
    profile = next(iter(runtime_profiles.values()))
    pattern: Pattern = "block-1x4" if _takes_blocks(profile) else "unstructured"
    tried: list[Reconstruction] = []
    with temporary_folder() as folder:
        pruned, sparsities = folder / "pruned.tflite", [sparsity] if sparsity else list(SPARSITIES)
        for number, share in enumerate(sparsities):
            label = f"reconstruct with {share:.0%} zeros"
            project.listener(events.StageStarted(label, number + 1, len(sparsities)))
            tried.append(reconstruct(source, data, share, pattern, pruned))
            project.listener(events.StageDone(label, number + 1, len(sparsities)))
            if tried[-1].output_error <= max_error:
                break
        else:
            nearest = min(result.output_error for result in tried)
            raise EdgesparseError(
                f"{source}: output error {nearest:.1%} exceeds --max-error {max_error:.1%}; raise "
                "it, lower --sparsity, or add representative samples"
            )
        stored, _ = store(pruned.read_bytes(), profile, "auto", source.name)
        compressed = min(stored + trailing_bytes(content, str(source)), content, key=len)
        if compressed is content:
            raise EdgesparseError(
                f"{source}: {share:.0%} sparsity does not shrink the file for "
                f"{profile.machine.runtime}"
            )
        # Measured in a temporary folder: an interrupted run leaves no output.
        new = folder / target.name
        new.write_bytes(compressed)
        command = shlex.join(["edgesparse", "bench", str(source), str(target)])
        devices = project.devices(device)
        results = bench_files(project, [source, new], devices, Benchmark(), command, quick=quick)
    _write(target, compressed)
    return Compressed(
        str(source), str(target), target.stem, len(content), len(compressed), share,
        tried[-1].output_error, results,
    )  # fmt: skip


def _takes_blocks(profile: Profile) -> bool:
    """True where blocks in fully connected layers save time, and zeros in convolutions do not."""
    cell = profile.verdict(Cell("FULLY_CONNECTED", "f32", "block-1x4"))
    return cell.exploits(0.3) and not profile.sparse_path.exists


def _keras(
    project: Resources,
    source: Path,
    data: Path,
    device: DeviceName,
    target: Path,
    sparsity: float,
    quick: bool,
) -> Compressed:
    loaded = _pipeline(source, data, sparsity, project.workspace())
    try:
        results = deploy(project, loaded, [device], quick=quick)
    except EdgesparseError as error:
        kind = UsageError if isinstance(error, UsageError) else EdgesparseError
        raise kind(_by_file(error, loaded, source, data)) from error
    row = best_row(results.rows, results.gates)
    if row is None:
        raise EdgesparseError(
            f"{source}: no variant ran and kept its metric; see 'edgesparse report'"
        )
    run = project.workspace().results_path(results.run)
    kept = run.with_name(FOLDER) / f"{row.variant}-{row.runtime.name}.tflite"
    _write(target, kept.read_bytes())
    dense = next((r for r in results.rows if r.variant == results.baseline and r.model), row)
    assert dense.model is not None
    return Compressed(
        str(source), str(target), row.variant, dense.model.bytes, target.stat().st_size, None, None,
        results,
    )  # fmt: skip


def _pipeline(source: Path, data: Path, sparsity: float, workspace: Workspace) -> Loaded[Any]:
    """Pipeline without training, with every variant that can pay."""
    base, described = Path.cwd(), _data_keys(data, source, workspace)
    if data.suffix in (".yaml", ".yml"):
        base = data.absolute().parent
    variants = untrained_variants(sparsity)
    if source.is_dir():  # A SavedModel is converted as it is.
        variants = {
            name: variant for name, variant in variants.items() if "sparsify" not in variant
        }
    text = yaml.safe_dump(
        {
            "name": "compress",
            **described,
            "model": {"ref": str(source.absolute())},
            "train": {"epochs": 0},
            "variants": variants,
            "release": "none",
        },
        sort_keys=False,
    )
    loaded = parse_pipeline(text, str(base / "compress.yaml"))
    return Loaded(loaded.spec.with_auto_variants(), loaded.document)


def _by_file(error: EdgesparseError, loaded: Loaded[Any], source: Path, data: Path) -> str:
    """Rewrite an error about the generated pipeline in terms of the user's files."""
    document = loaded.document

    def location(match: re.Match[str]) -> str:
        line = int(match[1] or 0)
        above = [key for key, (top, _) in document.keys.items() if len(key) == 1 and top <= line]
        about_data = above and above[-1][0] in ("data", "task", "metric")
        return f"{data if about_data else f'{source} with {data}'}: "

    return re.sub(re.escape(document.path) + r"(?::(\d+):\d+)?: ", location, str(error))


def _data_keys(data: Path, source: Path, workspace: Workspace) -> dict[str, Any]:
    """Pipeline keys for the data, and for the task where the model's outputs are the labels."""
    if data.suffix in (".yaml", ".yml"):
        spec = load_pipeline(data).spec.data
        return {"data": spec.model_dump(mode="json", exclude_defaults=True)}
    if not data.is_file():
        raise UsageError(f"{data}: no such file")
    if data.suffix not in (".npz", ".npy"):
        raise UsageError(f"{data}: use a .npz or .npy of samples, or a pipeline file (.yaml)")
    try:
        stored = np.load(data, allow_pickle=False)
        names = [] if isinstance(stored, np.ndarray) else list(stored.files)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"{data}: is not a {data.suffix} of plain arrays: {error}") from None
    if any(name in ("y", "y_train") or name.startswith("y.") for name in names):
        return {"data": {"name": "npz", "args": {"path": str(data.absolute())}}}
    # Stored permanently: stages read it again.
    kept = workspace.folder / "compress" / f"{source.stem}-{data.stem}.npz"
    kept.parent.mkdir(parents=True, exist_ok=True)
    tasks = label_samples_in_child(source, data, kept)
    keys: dict[str, Any] = {"data": {"name": "npz", "args": {"path": str(kept.absolute())}}}
    keys["task"] = {"outputs": tasks} if len(tasks) > 1 else {"name": next(iter(tasks.values()))}
    if next(iter(tasks.values())) == "regression":
        # The model has no error against its own outputs, so mae has no relative limit.
        keys["metric"] = "r2"
    return keys


def _write(target: Path, content: bytes) -> None:
    try:
        replace_bytes(target, content)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None
