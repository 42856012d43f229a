"""edgesparse's delegate on a device: where it can be loaded, and the build of its library."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from edgesparse.commands.fleet.target import Target
from edgesparse.delegate import BuildError, library, refused
from edgesparse.delegate.build import identity
from edgesparse.delegate.choice import MIN_ZEROS, TIMED_BETWEEN
from edgesparse.delegate.cost import cpu_of
from edgesparse.measure.rows import RuntimeInfo


def offers(target: Target) -> dict[str, dict[str, Any]]:
    """Inputs of the verification of int8 files, by runtime: the delegate's library, or why it
    is `refused`, and the `min_zeros`, the `cpu` and the predicted speed-ups by which it is tried
    and timed. Empty where the device file chooses another delegate."""
    if not target.device.loads_edgesparse:
        return {}
    chosen_by = dict[str, Any]()
    if target.device.delegate != "edgesparse":  # Else it is tried with every int8 file.
        least = MIN_ZEROS["amx_int8" in target.host.cpu_flags]
        cpu = cpu_of(target.host.machine, target.host.cpu_flags)
        # Instructions are not time: where they are counted, the prediction decides.
        between = TIMED_BETWEEN if target.device.clock == "wall" else (1.0, 1.0)
        chosen_by = {"min_zeros": least, "timed_between": list(between)}
        chosen_by |= {"cpu": cpu.name} if cpu else {}
    return {r.name: {**_library(target, r), **chosen_by} for r in target.runtimes}


def _library(target: Target, runtime: RuntimeInfo) -> dict[str, str]:
    machine = target.host.machine
    why = refused(runtime.name, runtime.version, machine)
    if why is not None:
        return {"refused": why}
    try:
        return {"architecture": machine, "library": identity(machine)}
    except BuildError as error:
        return {"refused": str(error)}


@contextmanager
def built_meanwhile(target: Target) -> Iterator[None]:
    """Build the library for a device, where that is still to do, while a block runs.

    Whoever needs it waits for it, or gets the reason why there is none.
    """
    builder = threading.Thread(target=_build, args=(target,))
    builder.start()
    try:
        yield
    finally:
        builder.join()


def _build(target: Target) -> None:
    if any("library" in offer for offer in offers(target).values()):
        with suppress(BuildError):
            library(target.host.machine)
