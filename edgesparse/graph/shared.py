"""A store that several machines share, on any filesystem that fsspec knows: S3, GCS, SFTP, NFS.

KEY/artifact.json names an artifact's files, which lie in a folder beside it. It is written last:
whoever sees it sees the whole artifact. What is fetched is checked by its digests.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from edgesparse.spec.errors import EdgesparseError, UsageError, missing_extra

MANIFEST = "artifact.json"
"""Names an artifact's files and their digests; what has none is no artifact."""
TRIES = 5
_WAIT_SECONDS = 0.5
"""Before the second try; twice as long before each further one."""
_Found = TypeVar("_Found")


class Shared:
    """A folder of artifacts at a URL such as s3://bucket/folder."""

    def __init__(self, url: str) -> None:
        """Raises UsageError where fsspec or the filesystem's own package is not installed, or the
        URL means nothing."""
        try:
            import fsspec
        except ImportError:
            raise missing_extra(f"'store: {url}'", "fsspec", "cluster") from None
        self.url = url.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"'store: {url}': {error}") from None
        self._seen: set[str] = set()

    def has(self, key: str) -> bool:
        """Whether a whole artifact is there."""
        if key not in self._seen:
            path = f"{self._root}/{key}/{MANIFEST}"
            # What others write must be seen: no listing is kept.
            if not self._tried(lambda: self._fresh().exists(path), "looked at"):
                return False
            self._seen.add(key)
        return True

    def fetch(self, key: str, folder: Path) -> None:
        """Copy an artifact's files into a folder."""
        text = self._tried(partial(self._files.cat_file, f"{self._root}/{key}/{MANIFEST}"), "read")
        try:
            manifest = json.loads(text)
            place, names = str(manifest.pop("place")), [str(name) for name in manifest["files"]]
        except (ValueError, LookupError, TypeError, AttributeError):
            raise EdgesparseError(f"{self.url}/{key}/{MANIFEST} is damaged; remove it") from None
        for name in (place, *names):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise EdgesparseError(f"{self.url}/{key}: names a file {name[:80]!r}; remove it")
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            source = f"{self._root}/{key}/{place}/{name}"
            self._tried(partial(self._files.get_file, source, str(folder / name)), "read")
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    def put(self, key: str, folder: Path) -> None:
        """Copy an artifact there, its manifest last. Two machines that made the same one do not mix
        their files: each has a place of its own, which its manifest names."""
        manifest = json.loads((folder / MANIFEST).read_text())
        place = uuid.uuid4().hex[:12]
        root = f"{self._root}/{key}"
        for name in manifest["files"]:
            target = f"{root}/{place}/{name}"
            self._tried(partial(self._upload, str(folder / name), target), "written")
        text = json.dumps({**manifest, "place": place}, indent=1, sort_keys=True).encode()
        self._tried(partial(self._files.pipe_file, f"{root}/{MANIFEST}", text), "written")
        self._seen.add(key)

    def _upload(self, path: str, target: str) -> None:
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.put_file(path, target)

    def _fresh(self) -> Any:
        self._files.invalidate_cache()
        return self._files

    def _tried(self, work: Callable[[], _Found], done: str) -> _Found:
        """A network fails now and then; what fails again and again is told."""
        for number in range(TRIES):
            try:
                return work()
            except FileNotFoundError:
                raise
            except Exception as error:  # Each filesystem has errors of its own.
                if number == TRIES - 1:
                    raise EdgesparseError(
                        f"the store {self.url} cannot be {done}: {type(error).__name__}: "
                        f"{str(error)[:300]}"
                    ) from error
                time.sleep(_WAIT_SECONDS * 2**number)
        raise AssertionError
