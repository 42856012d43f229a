"""PyTorch networks that a pipeline or a command names: shapes of their inputs, and mistakes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from edgesparse.spec.code import references
from edgesparse.spec.code.snapshot import is_file
from edgesparse.spec.code.sources import shown
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import ModelSource

DTYPES = ("float32", "float16", "int64", "int32", "bool")
EXAMPLE = "1x3x224x224"
SCHEMES = ("f32", "f16", "dynamic", "int8")
"""Schemes that a file without its layers can be quantized to."""
_SHAPE = re.compile(r"([1-9]\d{0,6}(?:x[1-9]\d{0,6})*)(?::(\w+))?")


def parse_shape(text: str) -> tuple[tuple[int, ...], str] | None:
    """Parse an input's shape and dtype, "1x3x224x224" or "1x128:int64", a batch of 1 first; None
    for other texts."""
    match = _SHAPE.fullmatch(text)
    if match is None or (match[2] or "float32") not in DTYPES:
        return None
    shape = tuple(map(int, match[1].split("x")))
    return None if shape[0] != 1 else (shape, match[2] or "float32")


def shapes_of(model: ModelSource) -> list[str]:
    """Return the shapes of a pipeline's PyTorch network as --input-shape takes them."""
    sizes = [size for size in model.input_shape if isinstance(size, int)]
    texts = [text for text in model.input_shape if isinstance(text, str)]
    return [*(["x".join(map(str, sizes))] if sizes else []), *texts]


def torch_problems(model: ModelSource, base: Path) -> list[tuple[str, str]]:
    """Return (key, message) for each mistake in a PyTorch network; its code is not run."""
    assert model.torch is not None
    problems = []
    try:
        if ".py:" not in model.torch:
            raise UsageError(f"{shown(model.torch)}: write my_net.py:build, its file and function")
        references.find("models", None, model.torch, base, classes=True)
    except UsageError as error:
        problems.append(("torch", str(error)))
    if model.weights is not None and not is_file(base / model.weights):
        problems.append(("weights", f"no file {shown(model.weights)} beside the YAML file"))
    shapes = shapes_of(model)
    if not shapes or any(parse_shape(shape) is None for shape in shapes):
        message = (
            "write the shape of one input, a batch of 1 first: [1, 3, 224, 224]; of several inputs "
            f"in the order of forward(): [{EXAMPLE}, '1x128:int64']"
        )
        problems.append(("input_shape" if model.input_shape else "torch", message))
    for key, value in (("args", model.args), ("custom_objects", model.custom_objects)):
        if value:
            problems.append((key, f"{key!r} does not belong to a torch model; remove it"))
    return problems


def compress_command(pipeline: str) -> str:
    """Return the command that prunes the PyTorch network of a pipeline file without training."""
    return shlex.join(["edgesparse", "compress", pipeline, "--data", "FILE"])
