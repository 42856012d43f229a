"""What a way to reach a device can do. One file per transport implements it."""

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


class DeviceError(EdgesparseError):
    """A device cannot be used: names the device and what to do."""


class ConnectionLost(DeviceError):
    """The way to the device broke; trying again may help, unless it is a command that hangs."""

    def __init__(self, message: str, *, may_return: bool = True, hung_up: bool = False) -> None:
        super().__init__(message)
        self.may_return = may_return
        self.hung_up = hung_up
        """The device is there: it answered and then closed the connection."""


class DiskFullError(DeviceError):
    """A file does not fit on the device's disk."""


class WorkdirError(DeviceError, UsageError):
    """The device file names a folder that is somebody's, as workdir."""


@dataclass(frozen=True)
class Upload:
    """A file to copy to an absolute path on the device, and its content's sha256."""

    source: Path
    target: str
    sha256: str


MAX_FETCHED_BYTES = 1 << 30
FETCH_SECONDS = 600.0
ROOM_LEFT_BYTES = 4_000_000
"""What stays free on a device's disk: journals are written there, and it has other users."""

Progress = Callable[[float, str], None]
"""Told the share done (0 to 1) and what is being done."""


class Transport(Protocol):
    """A connection to one device. Paths on the device are absolute POSIX paths."""

    name: str
    workdir: str
    python: str
    """A Python on the device; with runtimes once the device is provisioned."""
    lease_seconds: float
    """How long work on the device may go on when nobody is connected."""
    clock_slowdown: float
    """How many seconds here a second of the device's clock may take."""
    is_ephemeral: bool
    """Whether nothing stays there when the connection ends."""
    stop: threading.Event
    """Set when nobody waits any longer for a device that is away."""
    used: set[str]
    """Paths in workdir/files of what was copied there, or was there already."""

    def run(self, argv: Sequence[str], *, timeout_seconds: float = 60.0) -> Completed:
        """Run a command to its end; no shell sees the arguments unquoted.

        It is run again when the connection breaks: give none that must not run twice."""

    def open(self, argv: Sequence[str]) -> AbstractContextManager[Channel]:
        """Start a command to talk with; leaving the block closes its stdin, and then ends it."""

    def put_files(
        self,
        files: Sequence[Upload],
        progress: Progress | None = None,
        refused: dict[str, str] | None = None,
    ) -> int:
        """Copy files that the device does not have, check their digests there; bytes sent.

        With `refused`, what the device's disk does not take is noted there, by target, with the
        reason, and the others are copied; without, that raises DiskFullError."""

    def get_file(self, source: str, target: Path, max_bytes: int = MAX_FETCHED_BYTES) -> None:
        """Copy a file from the device; one that is larger is refused."""

    def remove_folder(self, path: str) -> None:
        """Remove a folder below workdir."""

    def reconnect(self) -> None:
        """Make the connection again if it is broken. Raises when it stays broken, or when
        `stopping` is set."""

    def close(self) -> None:
        """End the connection."""


def in_files(workdir: str, files: Iterable[Upload]) -> set[str]:
    """The targets of those that are kept by content, in workdir/files."""
    return {file.target for file in files if file.target.startswith(f"{workdir}/files/")}


def no_room(name: str, file: Upload, free_bytes: int, workdir: str) -> DiskFullError | None:
    """The error for a file for which there is too little room, if there is."""
    needed = file.source.stat().st_size
    if needed + ROOM_LEFT_BYTES <= free_bytes:
        return None
    return DiskFullError(
        f"device {name}: {file.source.name} does not fit: {needed / 1e6:.1f} MB, and "
        f"{free_bytes / 1e6:.1f} MB are free at {workdir}, of which {ROOM_LEFT_BYTES / 1e6:.0f} MB "
        "are kept; make room there or choose another workdir in the device file"
    )


def upload(source: Path, target: str) -> Upload:
    """An Upload with the digest of what `source` holds now."""
    return Upload(source, target, file_digest(source))
