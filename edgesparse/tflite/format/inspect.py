"""Inspection of a .tflite file: its weights, their zeros, and their storage.

Reads the flatbuffer through the schema of ai-edge-litert. The file is untrusted: any error in it is
raised as a UsageError.
"""

from __future__ import annotations

import gzip
import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.flatbuffer import IDENTIFIER, Constant, constants, damaged, open_model
from edgesparse.tflite.format.half_precision import allows_half
from edgesparse.tflite.format.macs import count_macs
from edgesparse.tflite.format.sparse_layout import Form

MAX_BYTES = 2**31
"""Offsets in a flatbuffer are signed 32-bit integers."""


@dataclass(frozen=True)
class WeightInfo:
    """A constant tensor. `size` counts its elements, `stored_bytes` is its size in the file, `form`
    that of its storage."""

    name: str
    op: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    zeros: int
    form: Form
    stored_bytes: int


@dataclass(frozen=True)
class ModelInfo:
    """A .tflite file. `zeros` and `sparsity` are over weights of two or more dimensions.

    `bytes_gzip` is its size after gzip at the default level, as in a package or download.
    """

    sha256: str
    bytes: int
    bytes_gzip: int
    weights: tuple[WeightInfo, ...]
    parameters: int
    macs: int | None = None
    """Multiply-accumulates of one inference; None where shapes do not determine them."""
    half_precision: bool = False
    """Whether the file allows half-precision arithmetic."""

    @property
    def matrices(self) -> tuple[WeightInfo, ...]:
        return tuple(w for w in self.weights if len(w.shape) >= 2 and w.dtype != "int32")

    @property
    def zeros(self) -> int:
        return sum(w.zeros for w in self.matrices)

    @property
    def storage(self) -> str:
        return "sparse" if any(w.form != "dense" for w in self.weights) else "dense"

    @property
    def sparsity(self) -> float:
        return self.zeros / max(1, sum(w.size for w in self.matrices))


def read_model(path: Path) -> bytes:
    """Read the bytes of a .tflite file. Raises UsageError where it obviously is not one."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise UsageError(f"{path} is not a regular file")
        if state.st_size > MAX_BYTES:
            raise UsageError(f"{path} is larger than 2 GB, the limit of .tflite models")
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be read: {reason}") from None
    if not content:
        raise UsageError(f"{path} is empty, not a .tflite model")
    if content[4:8] != IDENTIFIER:
        raise UsageError(f"{path} is not a .tflite model (its identifier TFL3 is missing)")
    return content


def inspect(content: bytes, name: str = "model.tflite") -> ModelInfo:
    """Read every constant tensor and count its zeros.

    Raises:
        UsageError: the file is damaged.
    """
    model = open_model(content, name)
    with damaged(name):
        weights = tuple(weight_info(constant) for constant in constants(model, content))
        half, macs = allows_half(model), count_macs(model)
    return ModelInfo(
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        bytes_gzip=gzip_bytes(content),
        weights=weights,
        parameters=sum(w.size for w in weights),
        macs=macs,
        half_precision=half,
    )


def gzip_bytes(content: bytes) -> int:
    """Return the size after gzip at its default level."""
    return len(gzip.compress(content, 6, mtime=0))


def weight_info(constant: Constant) -> WeightInfo:
    """Describe a constant."""
    return WeightInfo(
        name=constant.name,
        op=constant.op,
        shape=constant.values.shape,
        dtype=constant.values.dtype.name,
        size=constant.values.size,
        zeros=constant.zeros,
        form=constant.form,
        stored_bytes=constant.stored_bytes,
    )
