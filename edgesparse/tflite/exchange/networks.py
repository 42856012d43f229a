"""PyTorch networks as their code: a function that returns one, and its weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgesparse.spec.code import references
from edgesparse.spec.code.saved_models import SUFFIXES as KERAS
from edgesparse.spec.code.torch_models import DTYPES, EXAMPLE, parse_shape
from edgesparse.spec.errors import UsageError


@dataclass(frozen=True)
class Network:
    """A function or class of a Python file that returns a torch.nn.Module, the file of its weights,
    and an example of each input: shape and dtype, in the order of forward()."""

    file: Path
    function: str
    weights: Path | None
    inputs: tuple[tuple[tuple[int, ...], str], ...]

    def __str__(self) -> str:
        return f"{self.file}:{self.function}"

    @property
    def stem(self) -> str:
        return self.file.stem


def is_reference(source: str | Path) -> bool:
    """Return whether a command's model is FILE.py:FUNCTION."""
    return re.search(r"\.py:[^/]*$", str(source)) is not None


def network(
    source: str | Path,
    weights: str | Path | None = None,
    input_shapes: Sequence[str] = (),
    samples: Path | None = None,
) -> Network:
    """Locate a network's function; nothing is run.

    Args:
        source: FILE.py:FUNCTION.
        weights: a state_dict, .pt, .pth or .safetensors.
        input_shapes: as "1x3x224x224" or "1x128:int64", a batch of 1 first.
        samples: a .npy or .npz, whose shape the message has where no shape is given.

    Raises:
        UsageError: a file or the function is missing, or a shape is missing or invalid.
    """
    name, _, function = str(source).rpartition(":")
    file = Path(name)
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    references.find("models", None, f"{file.name}:{function}", file.parent, classes=True)
    weights = None if weights is None else Path(weights)
    if weights is not None and not weights.is_file():
        raise UsageError(f"{weights}: no such file")
    if weights is not None and weights.suffix in KERAS:
        raise UsageError(
            f"{weights} has weights of Keras, not of PyTorch; type: edgesparse compress {weights} "
            f"--builder {source}"
        )
    if not input_shapes:
        raise UsageError(
            f"{source}: the shape of its input is missing; add --input-shape "
            f"{_shape_of(samples) or EXAMPLE} (once for each input; whole numbers: 1x128:int64)"
        )
    return Network(file, function, weights, tuple(map(_parsed, input_shapes)))


def _parsed(text: str) -> tuple[tuple[int, ...], str]:
    parsed = parse_shape(text)
    if parsed is None:
        raise UsageError(
            f"--input-shape {text!r}: of a PyTorch network write {EXAMPLE}, a batch of 1 "
            f"first, or 1x128:int64 ({', '.join(DTYPES)}), in the order of forward()'s arguments"
        )
    return parsed


def _shape_of(samples: Path | None) -> str | None:
    """Return the shape of one sample as --input-shape takes it; None where it cannot be read."""
    if samples is None or samples.suffix not in (".npy", ".npz"):
        return None
    try:
        stored = np.load(samples, allow_pickle=False)
        x = stored if isinstance(stored, np.ndarray) else stored["x"]
    except (OSError, ValueError, KeyError, EOFError):
        return None
    whole = ":int64" if x.dtype.kind in "iu" and x.dtype != np.uint8 else ""
    return "x".join(map(str, (1, *x.shape[1:]))) + whole
