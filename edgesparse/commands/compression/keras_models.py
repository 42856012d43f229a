"""Compression of a Keras model, by a pipeline without training."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from edgesparse.commands.compression.result import Compressed, Deadline, write
from edgesparse.commands.compression.tflite_files import compress_file
from edgesparse.commands.deploy import deploy
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.commands.results.model_files import FOLDER
from edgesparse.graph import events
from edgesparse.graph.workspace import Workspace
from edgesparse.measure.results import Results
from edgesparse.measure.rows import Row
from edgesparse.measure.selection import best_row, clearly_slower, objections
from edgesparse.models.reference_outputs import label_samples_in_child
from edgesparse.spec.auto_variants import untrained_variants
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import ModelSource
from edgesparse.spec.reading.load import Loaded, load_pipeline, parse_pipeline
from edgesparse.spec.safe.temporary_folders import temporary_folder

_SPARSITY = 0.7


_METRICS = {"classification": "accuracy", "regression": "r2", "multi-label": "f1"}
"""Metrics by task where the labels are the model's own outputs: mae would have no relative limit;
of decisions those lost and new count, at their threshold."""


def compress_keras(
    project: Resources,
    source: Path,
    data: Path,
    device: DeviceName,
    target: Path,
    sparsity: float | None,
    max_error: float,
    deadline: Deadline,
    *,
    quick: bool,
    builder: str | None = None,
) -> Compressed:
    """Compress a Keras model; see `compress`."""
    share = sparsity or _SPARSITY
    loaded = _pipeline(source, builder, data, share, max_error, project.workspace())
    variants = loaded.spec.variants

    def deployed(names: Sequence[str] | None, *, quick: bool, benchmark: bool = True) -> Results:
        try:
            return deploy(
                project, loaded, [device], variants=names, quick=quick, benchmark=benchmark
            )
        except EdgesparseError as error:
            kind = UsageError if isinstance(error, UsageError) else EdgesparseError
            raise kind(_by_file(error, loaded, source, data)) from error

    dense = [name for name, variant in variants.items() if not variant.sparsify]
    sparse = [name for name in variants if name not in dense]
    if not sparse:
        done = _written(project, source, target, deployed(dense, quick=quick))
        project.listener(events.Note(f"wrote {target}: {done.change}; now zeros"))
        zeros = _with_zeros(project, done, data, device, sparsity, max_error, deadline, quick=quick)
        return zeros or done
    # Something useful first: dense files take seconds, zeros minutes.
    with suppress(_NothingKept):
        done = _written(project, source, target, deployed(dense, quick=True))
        project.listener(events.Note(f"wrote {target}: {done.change}; now zeros"))
    tried: list[str] = []
    for name in sparse:
        if deadline.has_passed:
            left = ", ".join(sparse[len(tried) :])
            project.listener(events.Note(f"--minutes ended before {left}"))
            break
        tried.append(name)
        if deadline.is_set:
            deployed([*dense, name], quick=True, benchmark=False)
    # All of them by no name, so that what is useless on the device is left out, and said.
    chosen = None if len(tried) == len(sparse) else [*dense, *tried]
    done = _written(project, source, target, deployed(chosen, quick=quick))
    if done.variant == done.results.baseline:
        project.listener(events.Note(_why_unchanged(done.results)))
    return done


def _with_zeros(
    project: Resources,
    dense: Compressed,
    data: Path,
    device: DeviceName,
    sparsity: float | None,
    max_error: float,
    deadline: Deadline,
    *,
    quick: bool,
) -> Compressed | None:
    """Prune the float file of a SavedModel, which has no layers, and write it; None where no file
    with zeros is within the limit and better than dense ones, among them the one written."""
    results = dense.results
    row = next((r for r in results.rows if r.variant == results.baseline and r.model), None)
    if row is None or data.suffix in (".yaml", ".yml"):
        reason = "needs --data as a .npy or .npz" if row else "needs a float file that runs"
        project.listener(events.Note(f"zeros were skipped: pruning a SavedModel {reason}"))
        return None
    target = Path(dense.target)
    # Of dense files, the pipeline's is judged by its metric: it stays unless zeros beat it.
    with temporary_folder() as folder:
        written, part = folder / f"{dense.variant}.tflite", folder / target.name
        written.write_bytes(target.read_bytes())
        beside = [] if dense.variant == results.baseline else [written]
        try:
            zeros = compress_file(
                project, _kept(project, results, row), data, device, part, sparsity, max_error,
                deadline, quick=quick, beside=beside,
            )  # fmt: skip
            if zeros.sparsity is not None:
                write(target, part.read_bytes())
                return replace(zeros, source=dense.source, target=dense.target)
            reason = f"{dense.variant} is as fast, or no level is within the limit"
        except EdgesparseError as error:
            reason = str(error)
    project.listener(events.Note(f"{target} has no zeros: {reason}"))
    return None


class _NothingKept(EdgesparseError):
    """No variant ran and kept its metric."""


def _written(project: Resources, source: Path, target: Path, results: Results) -> Compressed:
    """Write the best variant of a run."""
    row = best_row(results.rows, results.gates)
    if row is None:
        raise _NothingKept(f"{source}: no variant ran and kept its metric; see 'edgesparse report'")
    write(target, _kept(project, results, row).read_bytes())
    dense = next((r for r in results.rows if r.variant == results.baseline and r.model), row)
    assert dense.model is not None
    return Compressed(
        str(source), str(target), row.variant, dense.model.bytes, target.stat().st_size, None, None,
        results,
    )  # fmt: skip


def _kept(project: Resources, results: Results, row: Row) -> Path:
    """Return the model file of a row, beside the results of its run."""
    run = project.workspace().results_path(results.run)
    return run.with_name(FOLDER) / f"{row.variant}-{row.runtime.name}.tflite"


def _why_unchanged(results: Results) -> str:
    """State for each variant why the float model beats it."""
    (dense, *_) = (row for row in results.rows if row.variant == results.baseline)
    reasons: dict[str, str] = {}
    for row in results.rows:
        worse = "is slower" if clearly_slower(row, dense) else "loses more, at equal speed"
        reason = " and ".join(objections(row, results.gates)) or worse
        if row.variant != dense.variant:
            reasons.setdefault(row.variant, f"{row.variant} {reason}")
    return f"the float model was kept: {'; '.join(reasons.values()) or 'nothing else can pay here'}"


def _pipeline(
    source: Path,
    builder: str | None,
    data: Path,
    sparsity: float,
    max_error: float,
    workspace: Workspace,
) -> Loaded[Any]:
    """Pipeline without training, with every variant that can pay, and a limit on what is lost where
    the labels are the model's own outputs."""
    model = {"ref": str(source.absolute())}
    if builder is not None:
        model = {"ref": str(Path(builder).absolute()), "weights": str(source.absolute())}
    base, described = Path.cwd(), _data_keys(data, source, ModelSource(**model), workspace)
    if data.suffix in (".yaml", ".yml"):
        base = data.absolute().parent
    variants = untrained_variants(sparsity)
    if source.is_dir():  # A SavedModel is converted as it is.
        variants = {
            name: variant for name, variant in variants.items() if "sparsify" not in variant
        }
    baseline, *others = variants
    gates = [
        {"variant": variant, "metric": f"{metric}_drop", "max": max_error}
        for variant in others
        for metric in _limited(described.get("task", {}))
    ]
    text = yaml.safe_dump(
        {
            "name": "compress",
            **described,
            "model": model,
            "train": {"epochs": 0},
            "variants": variants,
            "baseline": baseline,
            "gates": gates,
            "release": "none",
        },
        sort_keys=False,
    )
    loaded = parse_pipeline(text, str(base / "compress.yaml"))
    return Loaded(loaded.spec.with_auto_variants(), loaded.document)


def _limited(task: Mapping[str, Any]) -> list[str]:
    """Return the metrics whose loss has a limit: of several outputs those of classes, since others
    have an error of 0 against themselves."""
    if "name" in task:
        return [_METRICS[task["name"]]]
    outputs = task.get("outputs", {}).items()
    return [f"{name} accuracy" for name, kind in outputs if kind == "classification"]


def _by_file(error: EdgesparseError, loaded: Loaded[Any], source: Path, data: Path) -> str:
    """Rewrite an error about the generated pipeline in terms of the user's files."""
    document = loaded.document

    def location(match: re.Match[str]) -> str:
        line = int(match[1] or 0)
        above = [key for key, (top, _) in document.keys.items() if len(key) == 1 and top <= line]
        about_data = above and above[-1][0] in ("data", "task", "metric")
        return f"{data if about_data else f'{source} with {data}'}: "

    return re.sub(re.escape(document.path) + r"(?::(\d+):\d+)?: ", location, str(error))


def _data_keys(
    data: Path, source: Path, model: ModelSource, workspace: Workspace
) -> dict[str, Any]:
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
    tasks = label_samples_in_child(model, data.absolute(), kept.absolute())
    keys: dict[str, Any] = {"data": {"name": "npz", "args": {"path": str(kept.absolute())}}}
    keys["task"] = {"outputs": tasks} if len(tasks) > 1 else {"name": next(iter(tasks.values()))}
    metric = _METRICS[next(iter(tasks.values()))]
    return keys if metric == "accuracy" else {**keys, "metric": metric}
