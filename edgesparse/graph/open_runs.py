"""Which runs go on, and which were killed and may have left something on a device.

A run that goes on holds a lock on a file in its folder, which the kernel lets go of however its
process ends; the file names the devices that it uses.
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
def held(folder: Path, devices: Iterable[str]) -> Iterator[set[str]]:
    """Mark a run as going on; yields a set for the devices where it could not tidy up, which is
    left to a later run."""
    left: set[str] = set()
    lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        replace_json(folder / OPEN, sorted(devices))
        try:
            yield left
        finally:
            _leave(folder, left)
    finally:
        os.close(lock)


def goes_on(folder: Path) -> bool:
    """Whether some process still works on that run."""
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
    """Runs that ended without tidying up on a device."""
    return [folder.name for folder in _closed(runs) if device in _devices(folder)]


def tidied(runs: Path, device: str, names: Iterable[str]) -> None:
    """Note that nothing of these runs is left on a device."""
    for name in names:
        _leave(runs / name, _devices(runs / name) - {device})


def _closed(runs: Path) -> Iterator[Path]:
    """Folders of runs that left a mark and do not go on."""
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
        found = json.loads((folder / OPEN).read_text())
    except (OSError, ValueError):
        return set()
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()


def _leave(folder: Path, devices: set[str]) -> None:
    # On a full disk the mark stays, which costs the next run a look.
    with suppress(OSError):
        if devices:
            replace_json(folder / OPEN, sorted(devices))
        else:
            for name in (OPEN, _LOCK):
                (folder / name).unlink(missing_ok=True)
