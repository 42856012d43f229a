"""Files that are whole or not there, and their digests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any


def replace_bytes(path: Path, content: bytes) -> None:
    """Write whole or not at all, into a folder that is made for it: whatever happens, there is the
    old file or the new one. A link's file is replaced, not the link.

    Raises:
        OSError: it cannot be written; what was there is there still.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_bytes(content)  # /dev/stdout or a pipe must stay what it is.
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    try:
        with part.open("wb") as file:
            if path.exists():
                shutil.copymode(path, part)
            file.write(content)
            _sync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def replace_text(path: Path, text: str) -> None:
    """The same for text; raises OSError."""
    replace_bytes(path, text.encode("utf-8"))


def replace_json(path: Path, value: Any, *, sort_keys: bool = False) -> None:
    """The same for a JSON document; NaN and infinity, which JSON has not, raise ValueError."""
    replace_text(path, json.dumps(value, indent=1, sort_keys=sort_keys, allow_nan=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when the block ends without an error.

    Raises:
        FileExistsError: there is something of that name.
        OSError: it cannot be written; nothing of it is there.
    """
    if os.path.lexists(path):
        raise FileExistsError(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    part.mkdir()
    try:
        yield part
        for written in (*part.rglob("*"), part):
            descriptor = os.open(written, os.O_RDONLY)
            try:
                _sync(descriptor)
            finally:
                os.close(descriptor)
        os.rename(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")


def _sync(descriptor: int) -> None:
    """Contents before the name: after a power cut a renamed file must not be empty."""
    os.fsync(descriptor)


def file_digest(path: Path) -> str:
    """sha256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


_COARSE_SECONDS = 2.0
"""A file that changed a moment ago may change again without another time."""


def digest_of(path: Path) -> str:
    """The same, taken anew when anything about the file has changed. Raises OSError."""
    state = path.stat()
    look = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    if time.time() - state.st_ctime < _COARSE_SECONDS:
        return file_digest(path)
    return _digest(os.fspath(path), look)


@lru_cache(maxsize=200_000)
def _digest(path: str, _look: tuple[int, ...]) -> str:
    return file_digest(Path(path))
