"""Whether a file lets XNNPACK compute in half precision where the CPU can.

What says so is an entry of the file's metadata (XNNPACK's delegate reads it, in both runtimes, from
tflite-runtime 2.14 on), so that no option of a runtime is needed. A CPU without half-precision
arithmetic computes as before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesparse.tflite.format.encode import add_buffer, packed
from edgesparse.tflite.format.graph import damaged, open_model

_NAME, _VALUE = b"reduced_precision_support", b"fp16accfp16"


def in_half_precision(content: bytes, name: str = "model.tflite") -> bytes:
    """The same model, allowed to be computed in half precision. Raises UsageError where the file is
    damaged."""
    model = open_model(content, name)
    with damaged(name):
        if allows_half(model):
            return content
        entry = schema.MetadataT()
        entry.name = _NAME.decode()
        entry.buffer = add_buffer(model, np.frombuffer(_VALUE, np.uint8))
        kept = [one for one in model.metadata or () if bytes(one.name) != _NAME]
        model.metadata = [*kept, entry]
        return packed(model, aligned=True)


def computes_half(content: bytes, name: str = "model.tflite") -> bool:
    """Whether a file allows it. Raises UsageError where the file is damaged."""
    model = open_model(content, name)
    with damaged(name):
        return allows_half(model)


def allows_half(model: Any) -> bool:
    """The same of a model that is read."""
    return _value(model) == _VALUE


def _value(model: Any) -> bytes:
    for entry in model.metadata or ():
        if bytes(entry.name or b"") == _NAME:
            data = model.buffers[entry.buffer].data
            return b"" if data is None else bytes(bytearray(data)).rstrip(b"\0")
    return b""
