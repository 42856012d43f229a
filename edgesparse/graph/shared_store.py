"""A store that several machines share, on any filesystem that fsspec knows: S3, GCS, SFTP, NFS.

KEY/artifact.json names an artifact's files, which lie in a folder beside it. It is written last:
whoever sees it sees the whole artifact. What is fetched is checked by its digests.
"""

from __future__ import annotations

import json
import queue
import re
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from edgesparse.spec.errors import EdgesparseError, UsageError, missing_extra
from edgesparse.spec.safe.files import replace_text

MANIFEST = "artifact.json"
"""Names an artifact's files and their digests; what has none is no artifact."""
TRIES = 5
_WAIT_SECONDS = 0.5
"""Before the second try; twice as long before each further one."""
SILENT_SECONDS = 60.0
"""So long an answer may take, and longer for what is large."""
_SLOWEST_BYTES_PER_SECOND = 50_000
_CREDENTIALS = re.compile(r"://[^/\s@]*@")
_Found = TypeVar("_Found")


class Shared:
    """A folder of artifacts at a URL such as s3://bucket/folder."""

    def __init__(self, url: str) -> None:
        """Raises UsageError where fsspec or the filesystem's own package is not installed, or the
        URL means nothing."""
        try:
            import fsspec
        except ImportError:
            raise missing_extra("'store'", "fsspec", "cluster") from None
        self.url = url.rstrip("/")
        self.shown = _CREDENTIALS.sub("://***@", self.url)
        """For messages: without a password."""
        try:
            self._local = fsspec.get_filesystem_class("file")
            # Some connect at once.
            self._files, self._root = _within(
                SILENT_SECONDS, lambda: fsspec.core.url_to_fs(self.url)
            )
        except Exception as error:  # Each filesystem has errors of its own.
            said = str(error).replace(self.url, self.shown) or type(error).__name__
            raise UsageError(f"'store: {self.shown}': {said[:300]}") from None
        self._seen: dict[str, dict[str, Any] | None] = {}
        """Manifests, by key; None where one is damaged."""

    def has(self, key: str) -> bool:
        """Whether a whole artifact is there."""
        return self.manifest(key) is not None

    def manifest(self, key: str) -> dict[str, Any] | None:
        """What an artifact that is there says of itself; None where it is not there, or damaged."""
        if key not in self._seen:
            path = f"{self._root}/{key}/{MANIFEST}"
            try:
                # What others write must be seen: no listing is kept.
                text = self._tried(lambda: self._fresh().cat_file(path), "looked at")
            except FileNotFoundError:
                return None
            found = _checked(text, key)
            if found is None:
                return None
            self._seen[key] = found
        return self._seen[key]

    def refuse(self, key: str) -> None:
        """Take an artifact whose files are damaged for one that is not there."""
        self._seen[key] = None

    def fetch(self, key: str, folder: Path) -> None:
        """Copy an artifact's files into a folder."""
        manifest = self.manifest(key)
        if manifest is None:
            raise FileNotFoundError(f"{self.url}/{key}")
        place, names = manifest["place"], list(manifest["files"])
        manifest = {name: value for name, value in manifest.items() if name != "place"}
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            source = f"{self._root}/{key}/{place}/{name}"
            size_bytes = int(manifest["files"][name]["bytes"])
            get = partial(self._files.get_file, source, str(folder / name))
            self._tried(get, "read", size_bytes)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    def put(self, key: str, folder: Path) -> None:
        """Copy an artifact there, its manifest last. Two machines that made the same one do not mix
        their files: each has a place of its own, which its manifest names."""
        manifest = json.loads((folder / MANIFEST).read_text())
        place = uuid.uuid4().hex[:12]
        root = f"{self._root}/{key}"
        for name in manifest["files"]:
            target = f"{root}/{place}/{name}"
            size_bytes = int(manifest["files"][name]["bytes"])
            upload = partial(self._upload, str(folder / name), target)
            self._tried(upload, "written", size_bytes)
        manifest = {**manifest, "place": place}
        text = json.dumps(manifest, indent=1, sort_keys=True)
        self._tried(partial(self._replace, f"{root}/{MANIFEST}", text), "written")
        self._seen[key] = manifest

    def _replace(self, path: str, text: str) -> None:
        """Whole or not at all; object stores do that by themselves."""
        if isinstance(self._files, self._local):
            replace_text(Path(path), text)
        else:
            self._files.pipe_file(path, text.encode())

    def _upload(self, path: str, target: str) -> None:
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.put_file(path, target)

    def _fresh(self) -> Any:
        self._files.invalidate_cache()
        return self._files

    def _tried(self, work: Callable[[], _Found], done: str, size_bytes: int = 0) -> _Found:
        """A network fails now and then; what fails again and again is told, and a server that says
        nothing the first time."""
        limit = SILENT_SECONDS + size_bytes / _SLOWEST_BYTES_PER_SECOND
        for number in range(TRIES):
            try:
                return _within(limit, work)
            except FileNotFoundError:
                raise
            except Silent:
                raise EdgesparseError(
                    f"the store {self.shown} cannot be {done}: no answer in {limit:.0f} s"
                ) from None
            except Exception as error:  # Each filesystem has errors of its own.
                if number == TRIES - 1:
                    said = str(error).replace(self.url, self.shown)
                    raise EdgesparseError(
                        f"the store {self.shown} cannot be {done}: {type(error).__name__}: "
                        f"{_CREDENTIALS.sub('://***@', said)[:300]}"
                    ) from None
                time.sleep(_WAIT_SECONDS * 2**number)
        raise AssertionError


class Silent(Exception):
    """A server took longer than any that works."""


def _within(seconds: float, work: Callable[[], _Found]) -> _Found:
    """What `work` gives. A thread that hangs in a filesystem's code is left behind."""
    done: queue.SimpleQueue[tuple[_Found | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((work(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        found, error = done.get(timeout=seconds)
    except queue.Empty:
        raise Silent from None
    if error is not None:
        raise error
    return found  # type: ignore[return-value]


def _checked(text: bytes, key: str) -> dict[str, Any] | None:
    """A manifest, if it is one, of that artifact, and names no file elsewhere."""
    try:
        found = json.loads(text)
        names = [str(found["place"]), *found["files"]]
        parts = [PurePosixPath(name) for name in names]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    elsewhere = any(part.is_absolute() or ".." in part.parts for part in parts)
    return None if found.get("key") != key or elsewhere else found
