"""The interface of transports, which reach a device; one file per transport implements it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgesparse.devices.transport.processes import Channel, Completed
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.files import file_digest
from edgesparse.spec.safe.journal import Journal


class DeviceError(EdgesparseError):
    """A device cannot be used; the message names the device and what to do."""


class ConnectionLost(DeviceError):
    """The connection to the device was lost; a retry can help unless a command hangs."""

    def __init__(self, message: str, *, may_return: bool = True, hung_up: bool = False) -> None:
        super().__init__(message)
        self.may_return = may_return
        self.hung_up = hung_up
        """The device answered and then closed the connection."""


class NotWrittenError(DeviceError):
    """A file cannot be written on the device: its disk is full, or the folder read-only."""


class WorkdirError(DeviceError, UsageError):
    """The device file names a workdir that has files of others."""


@dataclass(frozen=True)
class Upload:
    """A file to copy to an absolute path on the device, with its sha256."""

    source: Path
    target: str
    sha256: str


MAX_FETCHED_BYTES = 1 << 30
FETCH_SECONDS = 600.0
ROOM_LEFT_BYTES = 4_000_000
"""Space left free on a device's disk for journals and other users."""

_FULL = ("No space left", "Disk quota exceeded")

Progress = Callable[[float, str], None]
"""Called with the share done (0 to 1) and the current activity."""


class Transport(Protocol):
    """A connection to one device. Paths on the device are absolute POSIX paths."""

    name: str
    workdir: str
    python: str
    """A Python on the device; with runtimes once the device is provisioned."""
    lease_seconds: float
    """How long a job continues on the device without a connection."""
    clock_slowdown: float
    """How many seconds of this machine a second of the device's clock can take."""
    is_ephemeral: bool
    """Whether the device's files are lost when the connection ends."""
    stop: threading.Event
    """Set to stop waiting for a device that cannot be reached."""
    used: set[str]
    """Paths in workdir/files that were copied, or existed already."""
    journal: Journal | None
    """Keeps the names of `used` on this machine, for a run after one that was killed."""

    def run(self, argv: Sequence[str], *, timeout_seconds: float = 60.0) -> Completed:
        """Run a command to its end; no shell sees the arguments unquoted.

        It is run again after a lost connection, so it must be idempotent."""

    def open(self, argv: Sequence[str]) -> AbstractContextManager[Channel]:
        """Start an interactive command; the end of the block closes its stdin, then ends it."""

    def put_files(
        self,
        files: Sequence[Upload],
        progress: Progress | None = None,
        refused: dict[str, str] | None = None,
    ) -> int:
        """Copy files that the device does not have, and verify their digests on it.

        Args:
            refused: filled with the error of each file that cannot be written, by target;
                without it, that raises NotWrittenError.

        Returns:
            The number of bytes sent."""

    def get_file(self, source: str, target: Path, max_bytes: int = MAX_FETCHED_BYTES) -> None:
        """Copy a file from the device; DeviceError where it is larger than `max_bytes`."""

    def remove_folder(self, path: str) -> None:
        """Remove a folder below workdir."""

    def reconnect(self) -> None:
        """Restore a lost connection. Raises ConnectionLost after a while, or when `stop` is set."""

    def close(self) -> None:
        """End the connection."""


def note_used(transport: Transport, files: Iterable[Upload]) -> None:
    """Add the targets in workdir/files, which are named by content and shared by jobs, to those
    that are used."""
    shared = f"{transport.workdir}/files/"
    new = {file.target for file in files if file.target.startswith(shared)} - transport.used
    transport.used |= new
    if new and transport.journal is not None:
        transport.journal.add(path.removeprefix(shared) for path in sorted(new))


def disk_full(name: str, file: Upload, free_bytes: int, workdir: str) -> NotWrittenError | None:
    """Return the error for a file that does not fit on the disk, or None."""
    needed = file.source.stat().st_size
    if needed + ROOM_LEFT_BYTES <= free_bytes:
        return None
    return NotWrittenError(
        f"device {name}: {file.source.name} does not fit: it has {needed / 1e6:.1f} MB, and "
        f"{free_bytes / 1e6:.1f} MB are free at {workdir}, {ROOM_LEFT_BYTES / 1e6:.0f} MB of them "
        "reserved; free space or choose another workdir in the device file"
    )


def not_written(name: str, file: Upload, cause: str) -> NotWrittenError:
    """Return the error for a file that the device could not write."""
    todo = "free space or choose another workdir in the device file"
    if not any(word in cause for word in _FULL):
        todo = "make its folder writable, or choose another workdir in the device file"
    return NotWrittenError(f"device {name}: cannot write {file.target}: {cause}; {todo}")


def upload(source: Path, target: str) -> Upload:
    """Return an Upload with the digest of `source`."""
    return Upload(source, target, file_digest(source))
