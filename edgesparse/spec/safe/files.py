"""Atomic writes of files and folders, digests, locks, and the user's cache folder."""

from __future__ import annotations

import fcntl
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


def user_cache(name: str) -> Path:
    """Return the user's cache folder for a purpose, such as ~/.cache/edgesparse/wheels."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "edgesparse" / name


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for and hold the exclusive lock on a file, which is created where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically; its folder is created. A link's target is replaced, not the link.

    Raises:
        OSError: it cannot be written; an old file is unchanged.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_bytes(content)  # /dev/stdout or a pipe must not be replaced.
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
    """Write text atomically as UTF-8. Raises OSError."""
    replace_bytes(path, text.encode("utf-8"))


def replace_json(path: Path, value: Any, *, sort_keys: bool = False) -> None:
    """Write a JSON document atomically. Raises OSError; ValueError for NaN and infinity."""
    replace_text(path, json.dumps(value, indent=1, sort_keys=sort_keys, allow_nan=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill, which is renamed to `path` when the block ends without an error.

    Raises:
        FileExistsError: `path` exists.
        OSError: it cannot be written; nothing of it is left.
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
    """Write contents before the rename: after a power cut a renamed file must not be empty."""
    os.fsync(descriptor)


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


_COARSE_SECONDS = 2.0
"""A file that changed so recently can change again without a new timestamp."""


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, cached until its metadata change. Raises OSError."""
    state = path.stat()
    look = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    if time.time() - state.st_ctime < _COARSE_SECONDS:
        return file_digest(path)
    return _digest(os.fspath(path), look)


@lru_cache(maxsize=200_000)
def _digest(path: str, _look: tuple[int, ...]) -> str:
    return file_digest(Path(path))
