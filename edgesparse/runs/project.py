"""The files of a new project."""

from __future__ import annotations

from pathlib import Path

from edgesparse.spec.errors import UsageError
from edgesparse.spec.reading.load import LOCAL_DEVICE
from edgesparse.spec.reading.schema import schema_text

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


def write_project(folder: Path) -> list[Path]:
    """Write a first pipeline, the local device and their JSON Schemas into `folder`.

    Raises:
        UsageError: a file is there already (nothing is written), or cannot be written.
    """
    contents = {
        folder / "pipelines" / "first.yaml": PIPELINE,
        folder / "pipelines" / "schema.json": schema_text("pipeline") + "\n",
        folder / "devices" / "local.yaml": LOCAL_DEVICE,
        folder / "devices" / "schema.json": schema_text("device") + "\n",
    }
    for path in contents:
        if path.exists():
            raise UsageError(f"{path}: is there already; choose another folder")
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be written: {error.strerror}") from None
    return list(contents)
