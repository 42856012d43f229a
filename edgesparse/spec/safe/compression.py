"""Files packed for the wire: models with zeros are a fraction of their size then."""

from __future__ import annotations

import lzma
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from edgesparse.spec.safe.files import file_digest

SUFFIXES = (".tflite", ".npz")
WORTH = 0.9
"""A file that is hardly smaller packed is sent as it is."""
SMALL_BYTES, LARGE_BYTES = 16_000, 200_000_000
"""Below, a packed one costs a round trip and gains none; beyond, packing takes minutes."""
KEPT_BYTES = 1_000_000_000
_PRESET = 3
_NONE = ".none"
"""The mark of a file that is not worth it."""


def packed(source: Path) -> Path | None:
    """A file as .xz, kept for the next device; None where that is not worth it, or the cache of
    this machine cannot be written."""
    with suppress(OSError):
        if source.suffix not in SUFFIXES:
            return None
        if not SMALL_BYTES <= source.stat().st_size <= LARGE_BYTES:
            return None
        folder = _folder()
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
    """What a file costs on the way to a device."""
    return (packed(source) or source).stat().st_size


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "edgesparse" / "packed"


def _bound(folder: Path) -> None:
    """Let go of what was not used for longest."""
    found = [(path.stat(), path) for path in folder.iterdir()]
    total = sum(state.st_size for state, _ in found)
    for state, path in sorted(found, key=lambda pair: pair[0].st_mtime):
        if total <= KEPT_BYTES:
            break
        path.unlink(missing_ok=True)
        total -= state.st_size
