"""What a way to reach a device can do. One file per transport implements it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgesparse.devices.transport.processes import Channel, Completed
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.files import file_digest


class DeviceError(EdgesparseError):
    """A device cannot be used: names the device and what to do."""


class ConnectionLost(DeviceError):
    """The way to the device broke; trying again may help."""


@dataclass(frozen=True)
class Upload:
    """A file to copy to an absolute path on the device, and its content's sha256."""

    source: Path
    target: str
    sha256: str


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
    patience: float
    """How many seconds here a second of the device's clock may take."""

    def run(self, argv: Sequence[str], *, timeout_seconds: float = 60.0) -> Completed:
        """Run a command to its end; no shell sees the arguments unquoted."""

    def open(self, argv: Sequence[str]) -> AbstractContextManager[Channel]:
        """Start a command to talk with; leaving the block closes its stdin, and then ends it."""

    def put_files(self, files: Sequence[Upload], progress: Progress | None = None) -> int:
        """Copy files that the device does not have, check their digests there; bytes sent."""

    def get_file(self, source: str, target: Path) -> None:
        """Copy a file from the device."""

    def remove_folder(self, path: str) -> None:
        """Remove a folder below workdir."""

    def reconnect(self) -> None:
        """Make the connection again after it broke. Raises when it stays broken."""

    def close(self) -> None:
        """End the connection."""


def upload(source: Path, target: str) -> Upload:
    """An Upload with the digest of what `source` holds now."""
    return Upload(source, target, file_digest(source))
