"""Bytes after a .tflite file's flatbuffer, such as the zip with labels of TFLite metadata."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.encode import serialize
from edgesparse.tflite.format.flatbuffer import damaged, open_model

_PADDING = 16
"""A flatbuffer can end with fewer zeros, for alignment."""
_UNIT = 4
"""The length of a flatbuffer is a multiple of this."""


def trailing_bytes(content: bytes, name: str = "model.tflite") -> bytes:
    """Return the bytes after the flatbuffer; empty where they are the model's weights.

    A flatbuffer does not store its length: it ends where a shorter file would read differently.

    Raises:
        UsageError: the file is damaged.
    """
    model = open_model(content, name)
    if any(buffer.offset > 1 for buffer in model.buffers or ()):
        return b""
    low, high, whole = _end_of_buffers(model, content), len(content), _without_data(model, name)
    while low < high:
        middle = (low + high) // 2
        if _read_without_data(memoryview(content)[:middle]) == whole:
            high = middle
        else:
            low = middle + 1
    while low % _UNIT and content[low : low + 1] == b"\0":
        low += 1
    rest = content[low:]
    return rest if len(rest) >= _PADDING or rest.strip(b"\0") else b""


def _end_of_buffers(model: Any, content: bytes) -> int:
    base = np.frombuffer(content, np.uint8).ctypes.data
    arrays = [buffer.data for buffer in model.buffers or () if buffer.data is not None]
    return max((a.ctypes.data - base + a.nbytes for a in arrays if a.nbytes), default=8)


def _without_data(model: Any, name: str) -> bytes:
    """Serialize a model without its buffers, which are compared separately."""
    with damaged(name):
        for buffer in model.buffers or ():
            buffer.data = None
        return serialize(model, aligned=False)


def _read_without_data(content: memoryview) -> bytes | None:
    try:
        return _without_data(open_model(content, "part"), "part")
    except UsageError:
        return None
