"""What a way to reach a device can do. One file per transport implements it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgesparse.spec.errors import EdgesparseError


class DeviceError(EdgesparseError):
    """A device cannot be used: names the device and what to do."""


@dataclass(frozen=True)
class Completed:
    """A finished command on the device."""

    returncode: int
    stdout: str
    stderr: str


class Transport(Protocol):
    """A connection to one device. Paths on the device are absolute POSIX paths."""

    name: str
    python: str
    """The Python on the device that has the runtimes."""
    workdir: str

    def run(self, argv: Sequence[str], *, timeout_seconds: float = 60.0) -> Completed:
        """Run a command to its end; no shell sees the arguments unquoted."""

    def stream(self, argv: Sequence[str]) -> AbstractContextManager[Iterator[str]]:
        """Run a command and read its stdout by lines; leaving the block ends the command."""

    def put_file(self, source: Path, target: str, sha256: str) -> bool:
        """Copy a file there; False if the device had it already. The digest is checked there."""

    def get_file(self, source: str, target: Path) -> None:
        """Copy a file from the device."""

    def remove_folder(self, path: str) -> None:
        """Remove a folder below workdir."""


def file_digest(path: Path) -> str:
    """sha256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
