"""Artifacts under their content keys.

An artifact is a folder STORE/KEY with its files and artifact.json, which names them. It is written
under another name, synced and renamed, so a kill at any moment leaves nothing or a whole artifact,
and two runs that make the same one are safe: the first to rename wins.
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
"""A folder that is filled; whoever does it holds the lock of that name."""
_LOCK_POLL_SECONDS = 0.2


READS = "reads"
"""In a manifest: what the user's code has read for it in the project, by path, with digests."""


class Store:
    """A folder of artifacts; with `shared`, a copy of what is used of that."""

    def __init__(
        self, root: Path, shared: Shared | None = None, project: Path | None = None
    ) -> None:
        """`project` is the folder whose files artifacts may have been made of."""
        self.root = root
        self.shared = shared
        self.project = project
        # What was looked at, and how its files looked then.
        self._whole: dict[str, _Look] = {}
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{root}: cannot be made: {error.strerror}") from None

    def path(self, key: str) -> Path:
        """Where an artifact lies, or would; one that only the shared store has is fetched."""
        folder = self.root / key
        if self.shared is not None and not self._usable(key) and self.has(key):
            self._fetch(key)
        return folder

    def has(self, key: str) -> bool:
        """Whether an artifact is here, or in the shared store, made of the project's files as they
        are now."""
        if self._usable(key):
            return True
        there = None if self.shared is None else self.shared.manifest(key)
        return there is not None and self._changed(there) is None

    def _here(self, key: str) -> bool:
        return (self.root / key / MANIFEST).is_file()

    def _usable(self, key: str) -> bool:
        return self._here(key) and self.stale(key) is None

    def stale(self, key: str) -> str | None:
        """The file that the user's code has read for an artifact that is here, and that has changed
        since; None where there is none."""
        return self._changed(_manifest(self.root / key))

    def _changed(self, manifest: Mapping[str, Any]) -> str | None:
        reads = manifest.get(READS)
        if self.project is None or not isinstance(reads, dict):
            return None
        return file_access.changed(reads, self.project)

    def reads(self, keys: Iterable[str]) -> dict[str, str]:
        """What the user's code has read for artifacts that are here."""
        found: dict[str, str] = {}
        for key in keys:
            found |= _manifest(self.root / key).get(READS) or {}
        return found

    def _fetch(self, key: str) -> None:
        assert self.shared is not None
        with self.part() as part:
            try:
                self.shared.fetch(key, part)
                wrong = _wrong(part, key)
            except FileNotFoundError:
                wrong = "a file is missing"
            if wrong is not None:
                self.shared.refuse(key)  # It is made again, and stored in its place.
            else:
                self._place(part, key)

    def ready(self, key: str) -> bool:
        """Whether an artifact is here; one that only the shared store has is fetched, and counts as
        not there where it is damaged."""
        self.path(key)
        return self._here(key)

    def wrong(self, key: str) -> str | None:
        """What is wrong with an artifact that is there; None where it is whole, or not there.

        Sizes and times are looked at each time, contents once, and again when a time has changed:
        disks rot, and people edit.
        """
        folder = self.root / key
        if not os.path.lexists(folder):
            return None
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            look = {name: _look(folder / name) for name in (*_files(folder), MANIFEST)}
            if self._whole.get(key) == look:
                return None
            wrong = _wrong(folder, key)
            if wrong is None:
                self._whole[key] = look
            return wrong
        return _wrong(folder, key)

    def discard(self, key: str) -> None:
        """Take an artifact away, in one step."""
        self._whole.pop(key, None)
        away = self.root / _temporary_name()
        with suppress(FileNotFoundError):
            os.rename(self.root / key, away)
        _remove(away)

    @contextmanager
    def create(self, key: str, about: Mapping[str, Any]) -> Iterator[Path]:
        """A folder to fill; it becomes the artifact when the block ends without an error."""
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
            # Contents before the name: after a power cut a renamed folder must not have empty
            # files.
            for file in part.rglob("*"):
                _sync(file)
            _sync(part)
            self._place(part, key)
            _sync(self.root)
        if self.shared is not None:
            self.shared.put(key, self.root / key)

    @contextmanager
    def reserved(self, key: str, stop: threading.Event | None = None) -> Iterator[bool]:
        """Hold an artifact's name, so that of several runs that need it one makes it and the others
        wait; whether it is stored by now.

        Raises EdgesparseError when `stop` is set while it waits.
        """
        path = self._lock(key)
        lock = _hold(path, stop or threading.Event())
        try:
            yield self.has(key) and self.wrong(key) is None
        finally:
            path.unlink(missing_ok=True)
            os.close(lock)

    @contextmanager
    def part(self) -> Iterator[Path]:
        """A folder that no sweep takes away; it is gone afterwards unless it was renamed."""
        part = self.root / _temporary_name()
        # The kernel lets go of the lock however its holder ends; numbers of processes and names of
        # machines are not told apart where containers share a store.
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

    def _place(self, part: Path, key: str) -> None:
        for _ in range(2):
            try:
                os.rename(part, self.root / key)
                return
            except OSError:
                # Somebody else made the same artifact meanwhile: as good as ours.
                if self._usable(key):
                    return
                # One that has no manifest was made by none of us, or is damaged.
                self.discard(key)
        os.rename(part, self.root / key)

    def sweep(self) -> None:
        """Remove what killed runs left behind."""
        for entry in self.root.iterdir():
            if _TEMPORARY.fullmatch(entry.name):
                # Where a file system has no locks nobody knows whether it is still filled.
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
        """Artifacts that are not what their manifest says; for tests and doubts."""
        found = []
        for entry in sorted(self.root.iterdir()):
            if _TEMPORARY.fullmatch(entry.name):
                continue
            wrong = self.wrong(entry.name)
            if wrong is not None:
                found.append(f"{entry.name}: {wrong}")
        return found


def _manifest(folder: Path) -> dict[str, Any]:
    """What an artifact says of itself; nothing where it is not there, or damaged."""
    try:
        loaded = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _temporary_name() -> str:
    return f"tmp-{uuid.uuid4().hex}"


def _hold(path: Path, stop: threading.Event) -> int:
    """A descriptor of a file that nobody else holds; waits for that until `stop` is set."""
    while True:
        lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            while not _locked(lock):
                if stop.wait(_LOCK_POLL_SECONDS):
                    raise EdgesparseError("interrupted while another run made it")
            # Who held it before has removed it: the name belongs to another file by now, or none.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), path.stat()):
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _locked(descriptor: int) -> bool:
    """Whether the lock is ours now; a file system without locks lets everybody through."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


_Look = dict[str, tuple[int, int]]


def _look(path: Path) -> tuple[int, int]:
    """A file's size and time."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _wrong(folder: Path, key: str) -> str | None:
    """What is wrong with an artifact's folder, by its manifest."""
    try:
        if _manifest(folder).get("key", key) != key:
            return f"{MANIFEST} is that of another artifact"
        for name, expected in _files(folder).items():
            if _look(folder / name)[0] != expected["bytes"] or (
                file_digest(folder / name) != expected["sha256"]
            ):
                return f"{name} has changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} is damaged"
    return None


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """What a manifest says of its artifact's files, by name."""
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
