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
from edgesparse.spec.safe.files import replace_text

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
            self._local = fsspec.get_filesystem_class("file")
            self._files, self._root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"'store: {url}': {error}") from None
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
