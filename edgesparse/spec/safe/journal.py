"""Journals of the files that runs use on a device, for the run after one that was killed.

Each process has a journal of its own, on which it holds a lock that the kernel releases however the
process ends.
"""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


class Journal:
    """Names of files in a device's workdir/files, kept in `folder` until they are removed.

    A folder that cannot be written has no journal: leftovers then stay for a day.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: BinaryIO | None = None

    def add(self, names: Iterable[str]) -> None:
        """Add names of files before they are copied."""
        with suppress(OSError):
            if self._file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                # Without a buffer, which a full disk would keep.
                file = (self.folder / uuid.uuid4().hex).open("ab", buffering=0)
                fcntl.flock(file, fcntl.LOCK_EX)
                self._file = file
            self._file.write("".join(f"{name}\n" for name in names).encode())

    def clear(self) -> None:
        """Forget all names of this process: the files are removed."""
        if self._file is not None:
            with suppress(OSError):
                Path(self._file.name).unlink(missing_ok=True)
                self._file.close()
            self._file = None

    def left(self) -> Iterator[list[str]]:
        """Yield the names of each process that ended without removing its files; forgotten where
        the caller comes back for the next."""
        for path in sorted(self.folder.glob("[0-9a-f]" * 32)):
            with suppress(OSError, UnicodeDecodeError), path.open(encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield file.read().split()
                path.unlink()
