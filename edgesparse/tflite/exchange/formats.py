"""Formats of files from PyTorch and ONNX; those that are refused, with what to do."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.exchange.environment import Format

SUFFIXES = (".pt2", ".onnx", ".pt", ".pth", ".safetensors")


def format_of(path: Path) -> Format | None:
    """Return the format of a model from another framework; None for Keras and TFLite files.

    Raises:
        UsageError: it does not exist; it is PyTorch's, but has no graph or is damaged.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES or path.is_dir():
        return None
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if suffix == ".onnx":
        return "onnx"
    names: list[str] = []
    with suppress(zipfile.BadZipFile, NotImplementedError, ValueError), zipfile.ZipFile(path) as f:
        names = f.namelist()
    if any(_is_part(name, "models") or name.endswith("exported_program.json") for name in names):
        return "torch"
    if suffix == ".pt2":
        raise UsageError(f"{path} is not a program of torch.export; {_how_to_export(path)}")
    if any(_is_part(name, "code") for name in names):
        raise UsageError(
            f"{path} is TorchScript, which torch.export replaces; {_how_to_export(path)}"
        )
    if suffix == ".safetensors":
        raise UsageError(f"{path} has weights and no graph; {_how_to_export(path)}")
    raise UsageError(
        f"{path} is a pickle: it has no graph, and reading it can run any code; "
        f"{_how_to_export(path)}"
    )


def _is_part(name: str, folder: str) -> bool:
    """Return whether a member lies in a folder of an archive, below the archive's name."""
    return f"/{folder}/" in f"/{name}"


def _how_to_export(path: Path) -> str:
    return (
        "in PyTorch, with the module loaded, type:\n"
        "  model.eval().cpu()\n"
        "  program = torch.export.export(model, (torch.zeros(1, 3, 224, 224),))  # its input\n"
        f'  torch.export.save(program, "{path.stem}.pt2")\n'
        f"and pass {path.stem}.pt2; or pass the function that returns the module, and its "
        f"state_dict: my_net.py:build --weights {path.name} --input-shape 1x3x224x224"
    )
