"""What a run leaves on a device at its end: its releases and runtimes, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from edgesparse.devices.agent.run_job import PROGRAMS, put_programs
from edgesparse.devices.transport.interface import DeviceError, Transport

TIDY = PROGRAMS / "tidy.py"
_SECONDS = 300.0


def clear(transport: Transport, killed: Sequence[str]) -> None:
    """Before a run: remove what runs left whose host was killed, and what is old.

    Raises DeviceError.
    """
    if not transport.is_ephemeral:
        _tidy(transport, "begin", killed)


def remove_used(transport: Transport) -> bool:
    """After a run: remove the files that it used and no other does; whether the device answered.

    Where it cannot be reached any more they are removed by a later run.
    """
    # A device that is away now is tried once more, and not waited for again.
    transport.stop = threading.Event()
    transport.stop.set()
    names = [path.rpartition("/")[2] for path in transport.used]
    transport.used.clear()
    if names and not transport.is_ephemeral:
        try:
            # Also what it found there: another host, which brought it and is done, left it for us.
            _tidy(transport, "end", names)
        except DeviceError:
            return False
    return True


def leave(transport: Transport) -> None:
    """Remove what was used, and end the connection."""
    try:
        remove_used(transport)
    finally:
        transport.close()


def _tidy(transport: Transport, what: str, names: Sequence[str]) -> None:
    (program,) = put_programs(transport, TIDY)
    argv = [transport.python, program, what, transport.workdir, *names]
    done = transport.run(argv, timeout_seconds=_SECONDS)
    if done.returncode:
        raise DeviceError(f"device {transport.name}: cannot be tidied up: {done.last_line}")
