"""The encode command: store the weights of a .tflite file for a device's runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgesparse.commands.exchange import tflite_file
from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.spec.errors import EdgesparseError, UsageError, did_you_mean
from edgesparse.spec.safe.files import replace_bytes
from edgesparse.tflite.format.appended import trailing_bytes
from edgesparse.tflite.format.flatbuffer import constants, open_model
from edgesparse.tflite.format.inspect import read_model
from edgesparse.tflite.runtimes.storage import Decision, store, summary


@dataclass(frozen=True)
class Encoded:
    """An encoded file; `notes` explain weights with zeros that stay dense."""

    source: str
    target: str
    runtime: str
    bytes_before: int
    bytes_after: int
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...]


def encode(
    project: Resources,
    source: str | Path,
    target: str | Path,
    device: DeviceName = "local",
    *,
    runtime: str | None = None,
    weights: str | Path | None = None,
    input_shapes: Sequence[str] = (),
) -> Encoded:
    """Store each weight of a .tflite file in the format that a device's runtime exploits, else in
    the smallest that it accepts. No value changes.

    Args:
        source: a .tflite file; a .pt2 or .onnx file is converted, as FILE.py:FUNCTION is, which
            returns a torch.nn.Module.
        runtime: one of the device's; default: the first that its file names.
        weights: of FILE.py:FUNCTION: its state_dict.
        input_shapes: of FILE.py:FUNCTION: shapes of its inputs, as "1x3x224x224" or "1x128:int64".

    Raises:
        UsageError: a file or name is wrong.
        DeviceError: the device cannot be used.
    """
    source, target = tflite_file(project, source, weights, input_shapes), Path(target)
    content = read_model(source)
    with project.target(device) as connected:
        runtime_profiles = profiles(connected, project.workspace())
    if not runtime_profiles:
        raise EdgesparseError(f"device {connected.device.name} has no usable runtime")
    name = runtime or next(iter(runtime_profiles))
    if name not in runtime_profiles:
        raise UsageError(f"unknown runtime {name!r}{did_you_mean(name, runtime_profiles)}")
    changed, decisions = store(content, runtime_profiles[name], "auto", str(source))
    _require_equal(content, changed, str(source))
    changed += trailing_bytes(content, str(source))
    # Sparse formats have headers and indices: a file that would grow stays unchanged.
    pays = len(changed) < len(content) or any(d.exploited for d in decisions)
    pays = pays or any(form != "dense" for form in _forms(content))
    result = changed if pays else content
    try:
        replace_bytes(target, result)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None
    label = f"{name} {runtime_profiles[name].machine.version}"
    return Encoded(
        str(source), str(target), label, len(content), len(result), decisions,
        tuple(summary(list(decisions))),
    )  # fmt: skip


def _forms(content: bytes) -> list[str]:
    return [constant.form for constant in constants(open_model(content, "model"), content)]


def _require_equal(before: bytes, after: bytes, name: str) -> None:
    """Read every weight back and raise EdgesparseError where a value changed."""
    first = {c.label: c.values for c in constants(open_model(before, name), before) if c.is_weight}
    second = {c.label: c.values for c in constants(open_model(after, name), after) if c.is_weight}
    same = first.keys() == second.keys() and all(
        np.array_equal(values, second[label]) for label, values in first.items()
    )
    if not same:
        raise EdgesparseError(f"{name}: weights differ after encoding; nothing was written")
