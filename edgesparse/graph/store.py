"""The store of artifacts by content key.

An artifact is a folder STORE/KEY with its files and artifact.json, which names them. It is written
under a temporary name, synced and renamed, so that a kill leaves nothing or a complete artifact.
Two runs that create the same one are safe: the first to rename wins.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgesparse.graph.shared_store import MANIFEST, Shared
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe import file_access
from edgesparse.spec.safe.files import file_digest

_TEMPORARY = re.compile(r"tmp-[0-9a-f]{32}")
"""Folders that are being filled; their process holds the lock of that name."""
_UNLOCKED = re.compile(r"tmp-(\d+)(@[0-9a-f]+)?-[0-9a-f]{8}")
"""Those of versions before the locks, named by their process."""
_UNLOCKED_SECONDS = 24 * 3600
"""Time without a change after which those are removed: their process can be in a container."""
_LOCK_POLL_SECONDS = 0.2


READS = "reads"
"""Key of a manifest: the project's files that the user's code read for it, with digests."""


class DamagedArtifact(EdgesparseError):
    """An artifact that only the shared store has, and that is damaged there; from now on it counts
    as missing."""


class Store:
    """A folder of artifacts; with `shared`, a cache of that store."""

    def __init__(
        self, root: Path, shared: Shared | None = None, project: Path | None = None
    ) -> None:
        """`project` is the folder with files that artifacts can depend on."""
        self.root = root
        self.shared = shared
        self.project = project
        # Verified artifacts with the sizes and times of their files.
        self._whole: dict[str, _Look] = {}
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{root}: cannot be created: {error.strerror}") from None

    def path(self, key: str) -> Path:
        """Return the folder of an artifact; one that only the shared store has is fetched.

        Raises:
            DamagedArtifact: the shared store's copy is damaged; run its stage again.
        """
        folder = self.root / key
        if self.shared is not None and not self._usable(key) and self.has(key):
            self._fetch(key)
        return folder

    def has(self, key: str) -> bool:
        """Return whether an artifact is in this or the shared store and up to date with the
        project's files that it was built from."""
        if self._usable(key):
            return True
        there = None if self.shared is None else self.shared.manifest(key)
        return there is not None and self._changed(there) is None

    def _here(self, key: str) -> bool:
        return (self.root / key / MANIFEST).is_file()

    def _usable(self, key: str) -> bool:
        return self._here(key) and self.stale(key) is None

    def stale(self, key: str) -> str | None:
        """Return a changed file that the user's code read for an artifact here, or None."""
        return self._changed(_manifest(self.root / key))

    def _changed(self, manifest: Mapping[str, Any]) -> str | None:
        reads = manifest.get(READS)
        if self.project is None or not isinstance(reads, dict):
            return None
        return file_access.changed(reads, self.project)

    def reads(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the files that the user's code read for artifacts in this store, with digests."""
        files: dict[str, str] = {}
        for key in keys:
            files |= _manifest(self.root / key).get(READS) or {}
        return files

    def _fetch(self, key: str) -> None:
        assert self.shared is not None
        with self.part() as part:
            try:
                self.shared.fetch(key, part)
                wrong = _problem_of(part, key)
            except FileNotFoundError:
                wrong = "a file is missing"
            if wrong is not None:
                self.shared.refuse(key)
                raise DamagedArtifact(f"{key[:12]} in {self.shared.shown}: {wrong}; run again")
            self._rename_into(part, key)

    def ready(self, key: str) -> bool:
        """Return whether an artifact is in this store; fetches it from the shared store, where a
        damaged one does not count."""
        with suppress(DamagedArtifact):
            self.path(key)
        return self._here(key)

    def damage(self, key: str) -> str | None:
        """Return the damage of an artifact; None where it is intact or missing.

        Sizes and times are checked each time, contents once, and again after a time has changed:
        disks fail, and people edit.
        """
        folder = self.root / key
        if not os.path.lexists(folder):
            return None
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            look = {name: _stat_of(folder / name) for name in (*_files(folder), MANIFEST)}
            if self._whole.get(key) == look:
                return None
            wrong = _problem_of(folder, key)
            if wrong is None:
                self._whole[key] = look
            return wrong
        return _problem_of(folder, key)

    def discard(self, key: str) -> None:
        """Remove an artifact atomically."""
        self._whole.pop(key, None)
        away = self.root / _temporary_name()
        with suppress(FileNotFoundError):
            os.rename(self.root / key, away)
        _remove(away)

    @contextmanager
    def create(self, key: str, about: Mapping[str, Any]) -> Iterator[Path]:
        """Yield a folder to fill; it becomes the artifact when the block ends without an error."""
        started = time.monotonic()
        with self.part() as part:
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
            # Contents before the rename: after a power cut the folder must not have empty files.
            for file in part.rglob("*"):
                _sync(file)
            _sync(part)
            self._rename_into(part, key)
            _sync(self.root)
        if self.shared is not None:
            self.shared.put(key, self.root / key)

    @contextmanager
    def reserved(self, key: str, stop: threading.Event | None = None) -> Iterator[bool]:
        """Lock an artifact's key, so that of several runs that need it one creates it and the
        others wait; yields whether it is stored by then.

        Raises:
            EdgesparseError: `stop` was set during the wait.
        """
        path = self._lock(key)
        lock = _hold(path, stop or threading.Event())
        try:
            yield self.has(key) and self.damage(key) is None
        finally:
            path.unlink(missing_ok=True)
            os.close(lock)

    @contextmanager
    def part(self) -> Iterator[Path]:
        """Yield a folder that sweeps spare; it is removed afterwards unless it was renamed."""
        part = self.root / _temporary_name()
        # The kernel releases the lock however its holder ends; process ids and host names are not
        # unique where containers share a store.
        lock = _hold(self._lock(part.name), threading.Event())
        try:
            part.mkdir()
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)
            self._lock(part.name).unlink(missing_ok=True)
            os.close(lock)

    def _lock(self, name: str) -> Path:
        path = self.root.with_name("locks") / name
        path.parent.mkdir(exist_ok=True)
        return path

    def _rename_into(self, part: Path, key: str) -> None:
        for _ in range(2):
            try:
                os.rename(part, self.root / key)
                return
            except OSError:
                # Another run has created the same artifact meanwhile.
                if self._usable(key):
                    return
                # A folder without a valid manifest is damaged.
                self.discard(key)
        os.rename(part, self.root / key)

    def sweep(self) -> None:
        """Remove temporary folders of killed runs."""
        for entry in self.root.iterdir():
            if _is_abandoned(entry):
                _remove(entry)
            elif _TEMPORARY.fullmatch(entry.name):
                # Without locks in the file system it can still be in use: keep it.
                with suppress(OSError):
                    lock = os.open(
                        self._lock(entry.name), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600
                    )
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(entry, ignore_errors=True)
                        self._lock(entry.name).unlink(missing_ok=True)
                    finally:
                        os.close(lock)

    def problems(self) -> list[str]:
        """Return the damaged artifacts; for tests."""
        lines = []
        for entry in sorted(self.root.iterdir()):
            if _TEMPORARY.fullmatch(entry.name):
                continue
            wrong = self.damage(entry.name)
            if wrong is not None:
                lines.append(f"{entry.name}: {wrong}")
        return lines


def _manifest(folder: Path) -> dict[str, Any]:
    """Read an artifact's manifest; empty where it is missing or damaged."""
    try:
        loaded = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _is_abandoned(folder: Path) -> bool:
    """Check for a temporary folder without a lock whose process has ended."""
    match = _UNLOCKED.fullmatch(folder.name)
    if match is None or Path("/proc", match[1]).exists():
        return False
    with suppress(OSError):
        changes = [path.lstat().st_mtime for path in (folder, *folder.rglob("*"))]
        return time.time() - max(changes) > _UNLOCKED_SECONDS
    return False


def _temporary_name() -> str:
    return f"tmp-{uuid.uuid4().hex}"


def _hold(path: Path, stop: threading.Event) -> int:
    """Lock a file and return its descriptor; waits until `stop` is set."""
    while True:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            while not _locked(lock):
                if stop.wait(_LOCK_POLL_SECONDS):
                    raise EdgesparseError("interrupted while waiting for another run")
            # The previous holder has removed the file: check that the name is still this file.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), path.stat()):
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _locked(descriptor: int) -> bool:
    """Try to lock a file; returns True also on file systems without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


_Look = dict[str, tuple[int, int]]


def _stat_of(path: Path) -> tuple[int, int]:
    """Return a file's size and time."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _problem_of(folder: Path, key: str) -> str | None:
    """Compare an artifact's folder with its manifest; returns the damage, or None."""
    try:
        if _manifest(folder).get("key", key) != key:
            return f"{MANIFEST} belongs to another artifact"
        for name, expected in _files(folder).items():
            if _stat_of(folder / name)[0] != expected["bytes"] or (
                file_digest(folder / name) != expected["sha256"]
            ):
                return f"{name} has changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} is damaged"
    return None


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the files of a manifest with sizes and digests, by name."""
    loaded = json.loads((folder / MANIFEST).read_text())["files"]
    return {str(name): dict(about) for name, about in loaded.items()}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
