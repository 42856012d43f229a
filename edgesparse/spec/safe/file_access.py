"""Files of a project that are read, by whatever means: Python's open, HDF5, SQLite, TensorFlow and
other libraries. Linux reports it (inotify); elsewhere every file of the project counts as read.

The reading process is not known, so files that an editor opens meanwhile count, too: none is
missed.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import select
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from edgesparse.spec.safe.files import digest_of

MOST_FOLDERS = 5_000
"""Most folders to watch, nearest first: each takes kernel memory, and a home folder has more."""
_MODIFY, _CLOSE_WRITE, _CLOSE_READ, _OPEN = 0x2, 0x8, 0x10, 0x20
_MOVED_TO, _CREATE, _OVERFLOW, _IS_FOLDER = 0x80, 0x100, 0x4000, 0x40000000
_EVENT = struct.Struct("iIII")
_FOREIGN = ("pyvenv.cfg", ".edgesparse-workdir")
"""Mark environments, and folders of devices that are this machine."""
_COMPILED, _GONE = "__pycache__", "gone"
_DOCUMENTS = (".md", ".rst", ".ipynb", ".html", ".pdf", ".log")
"""Suffixes of files that people open during a training and that are not its inputs."""
WRITTEN = "written"
"""Stands for a digest, and equals none."""
_Look = tuple[int, int, int]


class Watch:
    """Records which files in folders are read, until it is closed."""

    def __init__(self, folders: Iterable[Path], ignored: Callable[[Path], bool]) -> None:
        """Watch `folders`, except files and folders for which `ignored` is true."""
        self.problem = ""
        """Reason why reads cannot be recorded, so that every file counts."""
        self._limited = ""
        self._ignored = ignored
        self._folders = tuple(dict.fromkeys(folders))
        self._folder_of: dict[int, Path] = {}
        self._paused = False
        self._watched: frozenset[Path] = frozenset()
        self._looks: dict[Path, _Look | None] = {}
        """State of files when they were first opened; None for files created meanwhile."""
        self._read: set[Path] = set()
        self._written: set[Path] = set()
        self._replaced: set[Path] = set()
        self._listed: set[Path] = set()
        self._lock = threading.Lock()
        self._handle = -1
        try:
            self._begin()
        except OSError as error:
            self.problem = error.strerror or str(error)
        if self._handle >= 0:
            self._stop, self._stopping = os.pipe()
            self._thread = threading.Thread(target=self._listen, daemon=True)
            self._thread.start()

    def _begin(self) -> None:
        if not sys.platform.startswith("linux"):
            raise OSError("this system does not report which files are read")
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._handle < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        mask = _MODIFY | _CLOSE_WRITE | _CLOSE_READ | _OPEN | _MOVED_TO | _CREATE
        folders = list(_below(self._folders))  # Before watching: listing is a read, too.
        if len(folders) == MOST_FOLDERS:
            self._limited = (
                f"{self._folders[0]} has more than {MOST_FOLDERS:,} folders; files that your code "
                "reads in the deepest are not tracked: name them in args"
            )
        for folder in folders:
            if self._ignored(folder):
                continue
            number = libc.inotify_add_watch(self._handle, os.fsencode(folder), mask)
            if number < 0:
                error = ctypes.get_errno()
                if folder.is_dir():
                    raise OSError(error, f"{folder} cannot be watched: {os.strerror(error)}")
                continue
            self._folder_of[number] = folder
        self._watched = frozenset(self._folder_of.values())

    def _listen(self) -> None:
        while self._stop not in select.select([self._handle, self._stop], [], [])[0]:
            self._drain()

    def _drain(self) -> None:
        if self._handle < 0:
            return
        with self._lock, suppress(BlockingIOError):
            while True:
                block, offset = os.read(self._handle, 1 << 16), 0
                while offset < len(block):
                    number, mask, _, size = _EVENT.unpack_from(block, offset)
                    offset += _EVENT.size + size
                    name = block[offset - size : offset].split(b"\0", 1)[0]
                    self._hear(number, mask, os.fsdecode(name))

    def _hear(self, number: int, mask: int, name: str) -> None:
        if mask & _OVERFLOW:
            self.problem = "the system's queue of file events overflowed"
        if number not in self._folder_of or self._paused:
            return
        path = self._folder_of[number] / name if name else self._folder_of[number]
        if mask & _IS_FOLDER:
            if mask & _OPEN:
                self._listed.add(path)
            return
        compiled, path = path.suffix == ".pyc", _source(path)
        if _is_no_input(path.name):
            return
        if path.suffix == ".py" and not compiled and path.parent / _COMPILED in self._watched:
            return  # Python opens the compiled module; linters, editors and we open the source.
        is_new = mask & (_CREATE | _MOVED_TO) and not compiled
        if is_new and self._looks.setdefault(path, None) is not None:
            self._replaced.add(path)
        if (mask & _OPEN or compiled) and path not in self._looks:
            self._looks[path] = _look(path)
        if mask & _MODIFY and not compiled:
            self._written.add(path)
        elif mask & _CLOSE_READ or compiled or (mask & _CLOSE_WRITE and path not in self._written):
            self._read.add(path)

    @property
    def notice(self) -> str:
        """Note for the user; empty where all reads are tracked."""
        if not self.problem:
            return self._limited
        return (
            f"{self.problem}: a change of any file in the project trains again, since your code "
            "can read it"
        )

    def pause(self) -> None:
        """Record nothing until `resume`: the project's code does not run meanwhile."""
        self._drain()
        self._paused = True

    def resume(self, ignored: Callable[[Path], bool]) -> None:
        """Record again; files read before count with their present state."""
        self._drain()
        with self._lock:
            self._ignored = ignored
            self._paused = False
            self._looks = {path: look and _look(path) for path, look in self._looks.items()}
            self._written.clear()

    def reads(self, base: Path) -> dict[str, str]:
        """Return digests of the files read so far, by path relative to `base`.

        "FOLDER/*SUFFIX" stands for the names of a folder's files with a suffix, where the folder
        was listed. A file that was replaced, or written to, after it was opened has WRITTEN, since
        the content that was read is unknown.
        """
        self._drain()
        with self._lock:
            opened = {p for p in self._looks if p in self._read or p not in self._written}
            if self.problem:
                opened |= _files(self._folders)
            looks, listed = dict(self._looks), set(self._listed)
            replaced, written = set(self._replaced), self._read & self._written
        digests: dict[str, str] = {}
        opened = {path for path in opened if not self._ignored(path)}
        for path in sorted(opened):
            before, now = looks.get(path), _look(path)
            if now is None and before is None:
                continue  # A temporary file.
            unsteady = path in replaced or path in written or now != before
            if before is not None and unsteady:
                digests[_name(path, base)] = WRITTEN
                continue
            with suppress(OSError):
                digests[_name(path, base)] = digest_of(path)
        for folder in sorted(listed - {f for f in listed if self._ignored(f)}):
            for suffix in sorted({path.suffix for path in opened if path.parent == folder}):
                name = _name(folder / f"*{suffix}", base)
                digests[name] = digest(base, name)
        return digests

    def close(self) -> None:
        if self._handle >= 0:
            os.write(self._stopping, b"x")
            self._thread.join()
            for handle in (self._handle, self._stop, self._stopping):
                os.close(handle)
            self._handle = -1


def changed(reads: Mapping[str, str], base: Path) -> str | None:
    """Return the first name whose digest differs from `reads`; None where none does."""
    return next(
        (name for name, digest_before in reads.items() if digest(base, name) != digest_before), None
    )


def digest(base: Path, name: str) -> str:
    """Return the present digest of a name in `Watch.reads`."""
    path = base / name
    try:
        if path.name.startswith("*"):
            names = sorted(p.name for p in path.parent.iterdir() if p.suffix == path.name[1:])
            return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()
        return digest_of(path)
    except OSError:
        return _GONE


def _name(path: Path, base: Path) -> str:
    return os.path.relpath(path, base)


def _look(path: Path) -> _Look | None:
    """Return inode, size and time of a file: equal as long as it is unchanged."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _source(path: Path) -> Path:
    """Return the source file of a compiled module, or the path itself."""
    if path.suffix == ".pyc" and path.parent.name == _COMPILED:
        return path.parent.parent / f"{path.name.split('.')[0]}.py"
    return path


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.endswith("~")


def _is_no_input(name: str) -> bool:
    """Return True for names of files, not of folders, that are never inputs."""
    return _is_hidden(name) or name.endswith((".pyc", *_DOCUMENTS))


def _below(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield folders and those in them, the nearest first; not hidden or foreign ones."""
    waiting, count = [path for path in folders if path.is_dir()], 0
    seen: set[Path] = set()
    while waiting and count < MOST_FOLDERS:
        folder = waiting.pop(0)
        if folder in seen:
            continue
        seen.add(folder)
        count += 1
        yield folder
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False) or _is_hidden(entry.name):
                    continue
                if entry.name != "node_modules" and not any(
                    Path(entry, mark).exists() for mark in _FOREIGN
                ):
                    waiting.append(Path(entry.path))


def _files(folders: Iterable[Path]) -> set[Path]:
    """Return every file that can be an input."""
    files = set()
    for folder in _below(folders):
        with suppress(OSError):
            files |= {path for path in folder.iterdir() if path.is_file()}
    return {path for path in files if not _is_no_input(path.name)}
