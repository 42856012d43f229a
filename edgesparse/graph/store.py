"""Artifacts under their content keys.

An artifact is a folder STORE/KEY with its files and artifact.json, which names them. It is written
under another name, synced and renamed, so a kill at any moment leaves nothing or a whole artifact,
and two runs that make the same one are safe: the first to rename wins.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesparse.spec.errors import UsageError
from edgesparse.spec.files import file_digest

MANIFEST = "artifact.json"
_TEMPORARY = re.compile(r"^tmp-(\d+)-")


class Store:
    """A folder of artifacts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{root}: cannot be made: {error.strerror}") from None

    def path(self, key: str) -> Path:
        return self.root / key

    def has(self, key: str) -> bool:
        return (self.path(key) / MANIFEST).is_file()

    def manifest(self, key: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.path(key) / MANIFEST).read_text())
        return loaded

    @contextmanager
    def create(self, key: str, about: Mapping[str, Any]) -> Iterator[Path]:
        """A folder to fill; it becomes the artifact when the block ends without an error."""
        # The process id in the name tells a later run whether its maker still lives.
        part = self.root / f"tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        part.mkdir()
        started = time.monotonic()
        try:
            yield part
            files = {
                str(file.relative_to(part)): {
                    "bytes": file.stat().st_size,
                    "sha256": file_digest(file),
                }
                for file in sorted(part.rglob("*"))
                if file.is_file()
            }
            manifest = {
                "key": key,
                **about,
                "seconds": round(time.monotonic() - started, 3),
                "files": files,
            }
            (part / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
            # Contents before the name: after a power cut a renamed folder must not have empty
            # files.
            for file in part.rglob("*"):
                _sync(file)
            _sync(part)
            try:
                os.rename(part, self.path(key))
            except OSError:
                # Somebody else made the same artifact meanwhile: as good as ours.
                if not self.has(key):
                    raise
            _sync(self.root)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed runs left behind."""
        for entry in self.root.iterdir():
            found = _TEMPORARY.match(entry.name)
            if found and not _alive(int(found.group(1))):
                shutil.rmtree(entry, ignore_errors=True)

    def problems(self) -> list[str]:
        """Artifacts that are not what their manifest says; for tests and doubts."""
        found = []
        for entry in sorted(self.root.iterdir()):
            if _TEMPORARY.match(entry.name):
                continue
            if not (entry / MANIFEST).is_file():
                found.append(f"{entry.name}: no manifest")
                continue
            for name, expected in self.manifest(entry.name)["files"].items():
                file = entry / name
                if not file.is_file() or file_digest(file) != expected["sha256"]:
                    found.append(f"{entry.name}: {name} is missing or changed")
        return found


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
