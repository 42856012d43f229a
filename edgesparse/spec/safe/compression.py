"""Compression of files for the transfer to devices; models with zeros shrink to a fraction."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path

from edgesparse.spec.safe.files import file_digest, user_cache

SUFFIXES = (".tflite", ".npz")
WORTH = 0.9
"""Largest ratio of compressed to plain size; beyond it the plain file is sent."""
SMALL_BYTES, LARGE_BYTES = 16_000, 200_000_000
"""Below, the extra round trip costs more than is saved; above, compression takes minutes."""
KEPT_BYTES = 1_000_000_000
_PRESET = 3
_NONE = ".none"
"""Marks a file that compression does not shrink enough."""
_DAY_SECONDS = 86400
_PART = re.compile(r"[0-9a-f]{32}\.part")
_NAME = re.compile(rf"[0-9a-f]{{64}}(\.xz|{re.escape(_NONE)})")


def packed(source: Path) -> Path | None:
    """Return a file compressed as .xz, cached for the next device; None where that saves too
    little, or this machine's cache cannot be written."""
    with suppress(OSError):
        if source.suffix not in SUFFIXES:
            return None
        if not SMALL_BYTES <= source.stat().st_size <= LARGE_BYTES:
            return None
        folder = user_cache("packed")
        done = folder / f"{file_digest(source)}.xz"
        if done.is_file():
            os.utime(done)
            return done
        if done.with_suffix(_NONE).exists():
            return None
        folder.mkdir(parents=True, exist_ok=True)
        _bound(folder)
        part = folder / f"{uuid.uuid4().hex}.part"
        try:
            with source.open("rb") as plain, lzma.open(part, "wb", preset=_PRESET) as xz:
                shutil.copyfileobj(plain, xz, 1 << 20)
            if part.stat().st_size <= WORTH * source.stat().st_size:
                part.replace(done)
                return done
            done.with_suffix(_NONE).touch()
        finally:
            part.unlink(missing_ok=True)
    return None


def wire_bytes(source: Path) -> int:
    """Return the size of a file as sent to a device."""
    return (packed(source) or source).stat().st_size


def _bound(folder: Path) -> None:
    """Remove the least recently used files beyond KEPT_BYTES, and parts of killed processes."""
    for part in folder.glob("*.part"):
        if _PART.fullmatch(part.name) and time.time() - part.stat().st_mtime > _DAY_SECONDS:
            part.unlink(missing_ok=True)
    files = [(path.stat(), path) for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    total = sum(state.st_size for state, _ in files)
    for state, path in sorted(files, key=lambda pair: pair[0].st_mtime):
        if total <= KEPT_BYTES:
            break
        path.unlink(missing_ok=True)
        total -= state.st_size
