"""The init command: files of a new project."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from edgesparse.commands.drafts.draft import Draft
from edgesparse.commands.drafts.workflow import workflow
from edgesparse.spec.errors import UsageError, did_you_mean
from edgesparse.spec.reading.load import LOCAL_DEVICE
from edgesparse.spec.reading.schema import schema_text
from edgesparse.spec.safe.files import replace_bytes

PIPELINE = """\
# yaml-language-server: $schema=schema.json
name: first
description: a perceptron on scikit-learn's handwritten digits
data: {name: digits, args: {input_shape: [16, 16, 1]}}
model: {name: mlp, args: {input_shape: [16, 16, 1], classes: 10, widths: [512, 512]}}
train: {epochs: 10, schedule: cosine}
variants:
  dense-f32: {}
  dense-int8:
    quantize: int8
  sparse-f32:
    sparsify: {method: magnitude, sparsity: 0.9, pattern: block-1x4, epochs: 10}
baseline: dense-f32
"""


EMULATED = "pi5-emulated"


def write_project(
    folder: Path, example: str | None = None, *, draft: Draft | None = None, ci: bool = False
) -> list[Path]:
    """Write a pipeline and its files, the local device and JSON Schemas into `folder`. Existing
    files with the same content are kept.

    Args:
        example: start from this shipped pipeline.
        draft: files for the user's model, in place of a first pipeline.
        ci: also write a workflow for GitHub Actions, and the device that it deploys to.

    Returns:
        Paths of the written files, the pipeline first.

    Raises:
        UsageError: the example is unknown, a different file exists (nothing is written), or a file
            cannot be written.
    """
    name = draft.name if draft is not None else example or "first"
    contents = {f"pipelines/{name}.yaml": PIPELINE.encode()}
    if draft is not None:
        contents = {path: text.encode() for path, text in draft.contents.items()}
    elif example is not None:
        contents = {f"pipelines/{file.name}": file.read_bytes() for file in _example(example)}
    contents |= {
        "pipelines/schema.json": (schema_text("pipeline") + "\n").encode(),
        "devices/local.yaml": LOCAL_DEVICE.encode(),
        "devices/schema.json": (schema_text("device") + "\n").encode(),
    }
    if ci:
        device = _shipped("devices") / f"{EMULATED}.yaml"
        contents[f"devices/{device.name}"] = device.read_bytes()
        contents[".github/workflows/edgesparse.yml"] = workflow(name).encode()
    try:
        new = {
            folder / path: content
            for path, content in contents.items()
            if not _same(folder / path, content)
        }
        for path in new:
            if path.exists():
                raise UsageError(f"{path} already exists; choose another folder")
        for path, content in new.items():
            replace_bytes(path, content)
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be written: {error.strerror}") from None
    return list(new)


def examples() -> list[str]:
    """List the names of the shipped pipelines."""
    return sorted(path.stem for path in _shipped("pipelines").glob("*.yaml"))


def _example(name: str) -> list[Path]:
    """Files of a shipped pipeline: its own, and those beside it that it names."""
    folder = _shipped("pipelines")
    if name not in examples():
        raise UsageError(
            f"unknown example {name!r}{did_you_mean(name, examples())}; choose one of: "
            f"{', '.join(examples())}"
        )
    path = folder / f"{name}.yaml"
    text = path.read_text()
    others = (file for file in sorted(folder.glob("*.*")) if file.suffix in (".py", ".csv"))
    return [path, *(file for file in others if file.name in text)]


def _shipped(kind: str) -> Path:
    """Folder of shipped files: beside the source, or where a wheel installs them."""
    folders = (
        Path(__file__).parents[2] / kind,
        Path(sysconfig.get_path("data")) / "share" / "edgesparse" / kind,
    )
    folder = next((path for path in folders if (path / "schema.json").is_file()), None)
    if folder is None:
        raise UsageError(f"the shipped {kind} are not installed: {folders[1]} does not exist")
    return folder


def _same(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
