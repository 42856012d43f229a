"""A variant of a run as a folder that runs by itself: the model, and what is needed around it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from edgesparse.commands.fleet.resources import Resources
from edgesparse.commands.results.model_files import FOLDER, model_files
from edgesparse.devices.agent.run_job import PROGRAMS
from edgesparse.devices.setup.releases import MODEL_PROGRAMS
from edgesparse.graph.events import Note
from edgesparse.graph.workspace import Workspace
from edgesparse.measure.results import Results
from edgesparse.spec.errors import UsageError, did_you_mean
from edgesparse.spec.safe.files import file_digest, new_folder
from edgesparse.stages.samples import LABELS, TRANSFORM

EXAMPLES = (PROGRAMS / "camera.py", PROGRAMS / "main.cc")
_README = """\
# {variant}

{variant} of the pipeline {pipeline}, run {run}, stored for {runtime}.
On the device: `pip install numpy {runtime}` (pillow for image files). In a program, in this folder
or with it on `sys.path`:

    from edgesparse_model import Model

    model = Model()
    scores = model(frame)
    print(model.labels[scores.argmax()])

`help(Model)` lists what it takes. `python predict.py INPUT` is its command, `python camera.py`
a loop over a camera's frames. In C++: main.cc, with TensorFlow Lite's C library.
"""


def export(
    project: Resources,
    variant: str,
    output: str | Path | None = None,
    *,
    run: str | None = None,
    runtime: str | None = None,
) -> list[Path]:
    """Write a variant's model with labels, transforms and code that runs it.

    Args:
        output: new folder; default: the variant's name.
        run: id of a run; default: the last in which the variant is ok.
        runtime: target runtime; default: the one that the variant is faster with.

    Raises:
        UsageError: the run or variant is unknown, or the folder exists.
    """
    workspace = project.workspace()
    results, newest = _run_of(workspace, variant, run)
    if results is not newest:
        project.listener(Note(f"run {newest.run} is newer, but {variant} failed in it"))
    folder = workspace.results_path(results.run).with_name(FOLDER)
    source = _file_of(folder, results, variant, runtime)
    target = Path(output) if output is not None else Path(variant)
    about = json.loads(source.with_suffix(".json").read_text())
    named = {"variant": variant, "pipeline": results.pipeline, "run": results.run}
    sources = {"model.tflite": source}
    if isinstance(about["delegate"], dict):
        library = about["delegate"]["library"]
        sources |= {library: folder / library} if (folder / library).is_file() else {}
    about["files"] = {name: file_digest(path) for name, path in sources.items()}
    text = _README.format(**named, runtime=about["runtime"]["name"])
    try:
        with new_folder(target) as part:
            for name, path in sources.items():
                shutil.copyfile(path, part / name)
            (part / "manifest.json").write_text(json.dumps(about, indent=1) + "\n")
            for name in (LABELS, TRANSFORM):
                shutil.copyfile(folder / name, part / name)
            for program in (*MODEL_PROGRAMS, *EXAMPLES):
                shutil.copyfile(program, part / program.name)
            (part / "README.md").write_text(text)
    except FileExistsError:
        raise UsageError(f"{target} already exists; choose another folder with -o") from None
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None
    return sorted(target.iterdir())


def _run_of(workspace: Workspace, variant: str, run: str | None) -> tuple[Results, Results]:
    """The named run, or the last one with the variant ok and its model; and the last one with the
    variant."""
    runs = [workspace.results(run)] if run is not None else workspace.all_results()[::-1]
    candidates = [
        results for results in runs if any(row.variant == variant for row in results.rows)
    ]
    if not candidates:
        where = f"run {run}" if run is not None else "any run"
        names = {row.variant for results in runs for row in results.rows}
        raise UsageError(f"unknown variant {variant!r} in {where}{did_you_mean(variant, names)}")
    return next(
        (r for r in candidates if _is_ok(workspace, r, variant)), candidates[0]
    ), candidates[0]


def _is_ok(workspace: Workspace, results: Results, variant: str) -> bool:
    ok = any(row.variant == variant and row.status == "ok" for row in results.rows)
    return ok and bool(model_files(workspace.results_path(results.run).with_name(FOLDER), variant))


def _file_of(folder: Path, results: Results, variant: str, runtime: str | None) -> Path:
    """Model file of a variant for a runtime, by default the one that it is faster with."""
    files = {_runtime(path): path for path in model_files(folder, variant)}
    if not files:
        raise UsageError(f"run {results.run} has no model of {variant}; deploy it again")
    if runtime is not None and runtime not in files:
        raise UsageError(f"{variant} has no model for {runtime!r}{did_you_mean(runtime, files)}")
    rows = [r for r in results.rows if r.variant == variant and r.runtime.name in files]
    rows = [row for row in rows if row.status == "ok" and row.latency_ms]
    rows.sort(key=lambda row: row.latency_ms.p50 if row.latency_ms else 0.0)
    return files[runtime or (rows[0].runtime.name if rows else next(iter(files)))]


def _runtime(path: Path) -> str:
    return str(json.loads(path.with_suffix(".json").read_text())["runtime"]["name"])
