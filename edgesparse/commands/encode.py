"""The same .tflite model with its weights stored as one device's runtime likes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgesparse.commands.fleet.probes import profiles
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.spec.errors import EdgesparseError, UsageError, did_you_mean
from edgesparse.spec.safe.files import replace_bytes
from edgesparse.tflite.format.appended import trailing_bytes
from edgesparse.tflite.format.graph import constants, open_model
from edgesparse.tflite.format.inspect import read_model
from edgesparse.tflite.runtimes.storage import Decision, store, summary


@dataclass(frozen=True)
class Encoded:
    """What became of a file; `notes` say why weights with zeros stayed dense."""

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
) -> Encoded:
    """Store each weight of a .tflite file in the form that a device's runtime exploits, else in the
    smallest that it accepts; every value stays what it is.

    Args:
        runtime: one of the device's; default: the first that its file names.

    Raises:
        UsageError: a file or name is wrong.
        DeviceError: the device cannot be used.
    """
    source, target = Path(source), Path(target)
    content = read_model(source)
    with project.target(device) as connected:
        known = profiles(connected, project.workspace())
    if not known:
        raise EdgesparseError(f"device {connected.device.name} has no runtime that could be asked")
    name = runtime or next(iter(known))
    if name not in known:
        raise UsageError(f"the device has no runtime {name!r}{did_you_mean(name, known)}")
    changed, decisions = store(content, known[name], "auto", str(source))
    _require_equal(content, changed, str(source))
    changed += trailing_bytes(content, str(source))
    # Sparse forms have headers and indices: what did not become smaller stays as it was.
    pays = len(changed) < len(content) or any(d.exploited for d in decisions)
    pays = pays or any(form != "dense" for form in _forms(content))
    result = changed if pays else content
    try:
        replace_bytes(target, result)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None
    label = f"{name} {known[name].machine.version}"
    return Encoded(
        str(source), str(target), label, len(content), len(result), decisions,
        tuple(summary(list(decisions))),
    )  # fmt: skip


def _forms(content: bytes) -> list[str]:
    return [constant.form for constant in constants(open_model(content, "model"), content)]


def _require_equal(before: bytes, after: bytes, name: str) -> None:
    """Every weight is read back: storing it in another way changes no value."""
    first = {c.label: c.values for c in constants(open_model(before, name), before) if c.is_weight}
    second = {c.label: c.values for c in constants(open_model(after, name), after) if c.is_weight}
    same = first.keys() == second.keys() and all(
        np.array_equal(values, second[label]) for label, values in first.items()
    )
    if not same:
        raise EdgesparseError(f"{name}: its weights are not the same after encoding; not written")
