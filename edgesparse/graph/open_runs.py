"""Running runs, and killed ones that can have left files on a device.

A running run holds a lock on a file in its folder, which the kernel releases however its process
ends; another file names the devices that it uses.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgesparse.spec.safe.files import replace_json

OPEN = "open.json"
_LOCK = "open.lock"


@contextmanager
def hold(folder: Path, devices: Iterable[str]) -> Iterator[set[str]]:
    """Mark a run as running; yields a set for the devices on which the clean-up failed and is left
    to a later run."""
    left: set[str] = set()
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        replace_json(folder / OPEN, sorted(devices))
        try:
            yield left
        finally:
            _write_devices(folder, left)
    finally:
        os.close(lock)


def is_running(folder: Path) -> bool:
    """Return whether a run is still running."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def killed(runs: Path, device: str) -> list[str]:
    """Return the runs that ended without a clean-up on a device."""
    return [folder.name for folder in _closed(runs) if device in _devices(folder)]


def mark_clean(runs: Path, device: str, names: Iterable[str]) -> None:
    """Record that files of these runs were removed from a device."""
    for name in names:
        _write_devices(runs / name, _devices(runs / name) - {device})


def _closed(runs: Path) -> Iterator[Path]:
    """Yield the folders of ended runs with a mark."""
    for mark in sorted(runs.glob(f"*/{OPEN}")):
        with suppress(OSError):
            lock = os.open(mark.with_name(_LOCK), os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield mark.parent
            finally:
                os.close(lock)


def _devices(folder: Path) -> set[str]:
    try:
        names = json.loads((folder / OPEN).read_text())
    except (OSError, ValueError):
        return set()
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def _write_devices(folder: Path, devices: set[str]) -> None:
    # On a full disk the mark stays; the next run then cleans up once more.
    with suppress(OSError):
        if devices:
            replace_json(folder / OPEN, sorted(devices))
        else:
            for name in (OPEN, _LOCK):
                (folder / name).unlink(missing_ok=True)
