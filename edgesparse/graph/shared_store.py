"""A store that several machines share, on any filesystem that fsspec knows: S3, GCS, SFTP, NFS.

KEY/artifact.json names an artifact's files, which are in a folder beside it. It is written last, so
that an artifact with it is complete. Fetched files are verified by their digests.
"""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from edgesparse.spec.errors import EdgesparseError, UsageError, missing_extra
from edgesparse.spec.safe.files import replace_text
from edgesparse.spec.safe.text import without_credentials

MANIFEST = "artifact.json"
"""Names an artifact's files and their digests; a folder without it is not an artifact."""
TRIES = 5
_WAIT_SECONDS = 0.5
"""The pause before the second attempt; it doubles before each further one."""
SILENT_SECONDS = 60.0
"""Time-out of a request, without the time for large files."""
_SLOWEST_BYTES_PER_SECOND = 50_000
_Result = TypeVar("_Result")


class Shared:
    """A folder of artifacts at a URL such as s3://bucket/folder."""

    def __init__(self, url: str) -> None:
        """Open a URL. Raises UsageError where fsspec or the filesystem's package is not installed,
        or the URL is invalid."""
        try:
            import fsspec
        except ImportError:
            raise missing_extra("'store'", "fsspec", "cluster") from None
        self.url = url.rstrip("/")
        self.shown = _shown(self.url)
        """The URL without what can be a secret, for messages."""
        try:
            self._local = fsspec.get_filesystem_class("file")
            # Some filesystems connect now.
            self._files, self._root = _with_timeout(
                SILENT_SECONDS, lambda: fsspec.core.url_to_fs(self.url)
            )
        except Exception as error:  # Filesystems have different errors.
            text = self._masked(str(error))
            if isinstance(error, NoResponse):
                text = f"no answer within {SILENT_SECONDS:.0f} s"
            raise UsageError(
                f"'store: {self.shown}': {text[:300] or type(error).__name__}"
            ) from None
        self._seen: dict[str, dict[str, Any] | None] = {}
        """Manifests, by key; None where one is damaged."""

    def has(self, key: str) -> bool:
        """Return whether a complete artifact is in the store."""
        return self.manifest(key) is not None

    def manifest(self, key: str) -> dict[str, Any] | None:
        """Read an artifact's manifest; None where it is missing or damaged."""
        if key not in self._seen:
            path = f"{self._root}/{key}/{MANIFEST}"
            try:
                # Without a cached listing, which would hide artifacts of others.
                text = self._retry(lambda: self._fresh().cat_file(path), "read")
            except FileNotFoundError:
                return None
            manifest = _checked(text, key)
            if manifest is None:
                return None
            self._seen[key] = manifest
        return self._seen[key]

    def refuse(self, key: str) -> None:
        """Treat an artifact with damaged files as missing."""
        self._seen[key] = None

    def fetch(self, key: str, folder: Path) -> None:
        """Copy an artifact's files into a folder."""
        manifest = self.manifest(key)
        if manifest is None:
            raise FileNotFoundError(f"{self.url}/{key}")
        subfolder, names = manifest["place"], list(manifest["files"])
        manifest = {name: value for name, value in manifest.items() if name != "place"}
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            source = f"{self._root}/{key}/{subfolder}/{name}"
            size_bytes = int(manifest["files"][name]["bytes"])
            get = partial(self._files.get_file, source, str(folder / name))
            self._retry(get, "read", size_bytes)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    def put(self, key: str, folder: Path) -> None:
        """Copy an artifact to the store, its manifest last. Machines with the same artifact do not
        mix their files: each uses its own subfolder, which its manifest names."""
        manifest = json.loads((folder / MANIFEST).read_text())
        subfolder = uuid.uuid4().hex[:12]
        root = f"{self._root}/{key}"
        for name in manifest["files"]:
            target = f"{root}/{subfolder}/{name}"
            size_bytes = int(manifest["files"][name]["bytes"])
            upload = partial(self._upload, str(folder / name), target)
            self._retry(upload, "written", size_bytes)
        manifest = {**manifest, "place": subfolder}
        text = json.dumps(manifest, indent=1, sort_keys=True)
        self._retry(partial(self._replace, f"{root}/{MANIFEST}", text), "written")
        self._seen[key] = manifest

    def _replace(self, path: str, text: str) -> None:
        """Write a file atomically, as object stores always do."""
        if isinstance(self._files, self._local):
            replace_text(Path(path), text)
        else:
            self._files.pipe_file(path, text.encode())

    def _upload(self, path: str, target: str) -> None:
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.put_file(path, target)

    def _masked(self, text: str) -> str:
        query = self.url.partition("?")[2]
        text = text.replace(self.url, self.shown)
        return without_credentials(text.replace(query, "***") if query else text)

    def _fresh(self) -> Any:
        self._files.invalidate_cache()
        return self._files

    def _retry(self, work: Callable[[], _Result], action: str, size_bytes: int = 0) -> _Result:
        """Return the result of a request, retried after errors; a time-out is not retried."""
        limit = SILENT_SECONDS + size_bytes / _SLOWEST_BYTES_PER_SECOND
        for number in range(TRIES):
            try:
                return _with_timeout(limit, work)
            except FileNotFoundError:
                raise
            except NoResponse:
                raise EdgesparseError(
                    f"the store {self.shown} cannot be {action}: no answer within {limit:.0f} s"
                ) from None
            except Exception as error:  # Filesystems have different errors.
                if number == TRIES - 1:
                    raise EdgesparseError(
                        f"the store {self.shown} cannot be {action}: {type(error).__name__}: "
                        f"{self._masked(str(error))[:300]}"
                    ) from None
                time.sleep(_WAIT_SECONDS * 2**number)
        raise AssertionError


def _shown(url: str) -> str:
    """Return a URL without user, password and query, which can hold a token."""
    address, mark, _ = without_credentials(url).partition("?")
    return f"{address}?***" if mark else address


class NoResponse(Exception):
    """A server did not answer in time."""


def _with_timeout(seconds: float, work: Callable[[], _Result]) -> _Result:
    """Return the result of `work` in a thread, which is abandoned when it hangs."""
    done: queue.SimpleQueue[tuple[_Result | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((work(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = done.get(timeout=seconds)
    except queue.Empty:
        raise NoResponse from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def _checked(text: bytes, key: str) -> dict[str, Any] | None:
    """Parse a manifest; None where it is invalid, of another artifact, or names outside files."""
    try:
        manifest = json.loads(text)
        names = [str(manifest["place"]), *manifest["files"]]
        parts = [PurePosixPath(name) for name in names]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    elsewhere = any(part.is_absolute() or ".." in part.parts for part in parts)
    return None if manifest.get("key") != key or elsewhere else manifest
