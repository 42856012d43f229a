"""Temporary folders that are removed even when their process was killed.

Each has our prefix and a file with our mark, which its owner locks as long as it lives; the kernel
releases the lock however the owner ends. Creating a folder removes those without a lock. A folder
whose name or mark is not exactly ours is left alone.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "edgesparse-"
_NAME = re.compile(rf"{PREFIX}[a-z0-9_]{{8}}")
_LOCK = ".lock"
_MARK = b"temporary folder of edgesparse; removed when no process has this file locked\n"


class TemporaryFolder:
    """A temporary folder for this user only; `close` removes it."""

    def __init__(self, parent: Path | None = None) -> None:
        folder = Path(parent or tempfile.gettempdir())
        _sweep(folder)
        # Under another name until it is locked, so that no process removes it as abandoned.
        new = Path(tempfile.mkdtemp(prefix=f"new-{PREFIX}", dir=folder))
        self._lock = os.open(new / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.write(self._lock, _MARK)
        self.path = new.rename(new.with_name(new.name.removeprefix("new-")))

    def close(self) -> None:
        """Remove it; further calls have no effect."""
        if self._lock < 0:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a temporary folder; it is removed when the block ends, or after a kill with the next
    one."""
    folder = TemporaryFolder()
    try:
        yield folder.path
    finally:
        folder.close()


def _sweep(parent: Path) -> None:
    """Remove folders of this user's killed processes."""
    with suppress(OSError):
        for entry in os.scandir(parent):
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _remove_if_left(Path(entry.path))


def _remove_if_left(folder: Path) -> None:
    # The mark is required: other programs have files of that name, too.
    with suppress(OSError):
        if folder.stat().st_uid != os.getuid():
            return
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.read(lock, len(_MARK) + 1) == _MARK:
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
