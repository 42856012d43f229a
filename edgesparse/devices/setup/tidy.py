"""Clean-up of a device: after a run only releases and runtimes stay on it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from edgesparse.devices.agent.run_job import PROGRAMS, put_programs
from edgesparse.devices.transport.interface import DeviceError, Transport

TIDY = PROGRAMS / "tidy.py"
_SECONDS = 300.0
_AT_ONCE = 1000
"""Names in a command."""


def clear(transport: Transport, killed: Sequence[str]) -> None:
    """Before a run, remove leftovers of killed runs and old files. Raises DeviceError."""
    if transport.is_ephemeral:
        return
    _tidy(transport, "begin", killed)
    for names in transport.journal.left() if transport.journal else ():
        for start in range(0, len(names), _AT_ONCE):
            _tidy(transport, "end", names[start : start + _AT_ONCE])


def remove_used(transport: Transport) -> bool:
    """After a run, remove the files that only it used; returns whether the device could be reached.

    Otherwise a later run removes them.
    """
    # A lost connection is retried once, without waiting for the device to come back.
    transport.stop = threading.Event()
    transport.stop.set()
    names = [path.rpartition("/")[2] for path in transport.used]
    transport.used.clear()
    if names and not transport.is_ephemeral:
        try:
            # Also files of another host that it found and used: that host left them to this one.
            _tidy(transport, "end", names)
        except DeviceError:
            return False
        if transport.journal is not None:
            transport.journal.clear()
    return True


def leave(transport: Transport) -> None:
    """Remove the used files and end the connection."""
    try:
        remove_used(transport)
    finally:
        transport.close()


def _tidy(transport: Transport, what: str, names: Sequence[str]) -> None:
    (program,) = put_programs(transport, TIDY)
    argv = [transport.python, program, what, transport.workdir, *names]
    done = transport.run(argv, timeout_seconds=_SECONDS)
    if done.returncode:
        raise DeviceError(f"device {transport.name}: clean-up failed: {done.last_line}")
