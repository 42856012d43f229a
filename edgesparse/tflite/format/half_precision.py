"""Permission for XNNPACK to compute in half precision.

It is an entry of the file's metadata, which XNNPACK's delegate reads in both runtimes, from
tflite-runtime 2.14 on, so that no option of a runtime is needed. A CPU without half-precision
arithmetic ignores it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.tflite.format.encode import add_buffer, serialize
from edgesparse.tflite.format.flatbuffer import damaged, open_model

_NAME, _VALUE = b"reduced_precision_support", b"fp16accfp16"


def allow_half_precision(content: bytes, name: str = "model.tflite") -> bytes:
    """Add the permission to a file. Raises UsageError where the file is damaged."""
    model = open_model(content, name)
    with damaged(name):
        if allows_half(model):
            return content
        entry = schema.MetadataT()
        entry.name = _NAME.decode()
        entry.buffer = add_buffer(model, np.frombuffer(_VALUE, np.uint8))
        entries = [other for other in model.metadata or () if bytes(other.name) != _NAME]
        model.metadata = [*entries, entry]
        return serialize(model, aligned=True)


def computes_half(content: bytes, name: str = "model.tflite") -> bool:
    """Return whether a file has the permission. Raises UsageError where the file is damaged."""
    model = open_model(content, name)
    with damaged(name):
        return allows_half(model)


def allows_half(model: Any) -> bool:
    """Return whether a ModelT has the permission."""
    return _value(model) == _VALUE


def _value(model: Any) -> bytes:
    for entry in model.metadata or ():
        if bytes(entry.name or b"") == _NAME:
            data = model.buffers[entry.buffer].data
            return b"" if data is None else bytes(bytearray(data)).rstrip(b"\0")
    return b""
