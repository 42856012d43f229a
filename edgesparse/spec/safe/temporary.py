"""Temporary folders that a killed process does not leave for ever.

Each is named after us and has a file with our mark, which its owner holds a lock on as long as it
lives; the kernel lets go of that however the owner ends. Whoever makes the next one removes those
that nobody holds. A folder whose name or mark is not exactly ours is somebody's, and stays.
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
_MARK = b"a temporary folder of edgesparse; it goes when nobody holds this file\n"


class TemporaryFolder:
    """A folder of ours, for this user only; `close` removes it."""

    def __init__(self, parent: Path | None = None) -> None:
        place = Path(parent or tempfile.gettempdir())
        _sweep(place)
        # Under another name until it is held: nobody must take it for one that was left.
        made = Path(tempfile.mkdtemp(prefix=f"new-{PREFIX}", dir=place))
        self._lock = os.open(made / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.write(self._lock, _MARK)
        self.path = made.rename(made.with_name(made.name.removeprefix("new-")))

    def close(self) -> None:
        """Remove it; a second time does nothing."""
        if self._lock < 0:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone when the block ends, and at the latest when the next one is made."""
    folder = TemporaryFolder()
    try:
        yield folder.path
    finally:
        folder.close()


def _sweep(parent: Path) -> None:
    """Remove what killed processes of this user left."""
    with suppress(OSError):
        for entry in os.scandir(parent):
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _remove_if_left(Path(entry.path))


def _remove_if_left(folder: Path) -> None:
    # Without the mark it is none of these folders: other programs have files of that name, too.
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
