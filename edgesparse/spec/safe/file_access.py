"""Which files of a project somebody reads, however: Python's open, HDF5, SQLite, TensorFlow's and
other libraries' own. Linux says so (inotify); elsewhere every file of the project counts as read.

Whoever reads is not known: what an editor opens meanwhile counts, too, and so nothing is missed.
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
"""So many are watched, the nearest first: a home folder has more, and each takes kernel memory."""
_MODIFY, _CLOSE_WRITE, _CLOSE_READ, _OPEN = 0x2, 0x8, 0x10, 0x20
_MOVED_TO, _CREATE, _OVERFLOW, _IS_FOLDER = 0x80, 0x100, 0x4000, 0x40000000
_EVENT = struct.Struct("iIII")
_FOREIGN = ("pyvenv.cfg", ".edgesparse-workdir")
"""Mark environments, and folders of devices that are this machine."""
_COMPILED, _GONE = "__pycache__", "gone"
_DOCUMENTS = (".md", ".rst", ".ipynb", ".html", ".pdf", ".log")
"""What people have open beside a training, and no model is made of."""
WRITTEN = "written"
"""In place of a digest, and equal to none."""
_Look = tuple[int, int, int]


class Watch:
    """Notes what is read in folders until it is closed."""

    def __init__(self, folders: Iterable[Path], known: Callable[[Path], bool]) -> None:
        """`known` says of a file or folder that it is of no interest."""
        self.problem = ""
        """Why it is not known what is read, and every file counts."""
        self._limited = ""
        self._known = known
        self._folders = tuple(dict.fromkeys(folders))
        self._places: dict[int, Path] = {}
        self._paused = False
        self._watched: frozenset[Path] = frozenset()
        self._looks: dict[Path, _Look | None] = {}
        """How files were when they were opened first; None for those that were made meanwhile."""
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
            raise OSError("this system does not say which files are read")
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._handle < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        mask = _MODIFY | _CLOSE_WRITE | _CLOSE_READ | _OPEN | _MOVED_TO | _CREATE
        folders = list(_below(self._folders))  # Before any is watched: this lists them.
        if len(folders) == MOST_FOLDERS:
            self._limited = (
                f"{self._folders[0]} has more than {MOST_FOLDERS:,} folders; what your code reads "
                "in the deepest goes unnoticed: name it in args"
            )
        for folder in folders:
            if self._known(folder):
                continue
            number = libc.inotify_add_watch(self._handle, os.fsencode(folder), mask)
            if number < 0:
                error = ctypes.get_errno()
                if folder.is_dir():
                    raise OSError(error, f"{folder} cannot be watched: {os.strerror(error)}")
                continue
            self._places[number] = folder
        self._watched = frozenset(self._places.values())

    def _listen(self) -> None:
        while self._stop not in select.select([self._handle, self._stop], [], [])[0]:
            self._drain()

    def _drain(self) -> None:
        if self._handle < 0:
            return
        with self._lock, suppress(BlockingIOError):
            while True:
                block, place = os.read(self._handle, 1 << 16), 0
                while place < len(block):
                    number, mask, _, size = _EVENT.unpack_from(block, place)
                    place += _EVENT.size + size
                    name = block[place - size : place].split(b"\0", 1)[0]
                    self._hear(number, mask, os.fsdecode(name))

    def _hear(self, number: int, mask: int, name: str) -> None:
        if mask & _OVERFLOW:
            self.problem = "more files were read than the system notes"
        if number not in self._places or self._paused:
            return
        path = self._places[number] / name if name else self._places[number]
        if mask & _IS_FOLDER:
            if mask & _OPEN:
                self._listed.add(path)
            return
        compiled, path = path.suffix == ".pyc", _source(path)
        if _is_no_input(path.name):
            return
        if path.suffix == ".py" and not compiled and path.parent / _COMPILED in self._watched:
            return  # Python opens the compiled module, linters, editors and we the source.
        made = mask & (_CREATE | _MOVED_TO) and not compiled
        if made and self._looks.setdefault(path, None) is not None:
            self._replaced.add(path)
        if (mask & _OPEN or compiled) and path not in self._looks:
            self._looks[path] = _look(path)
        if mask & _MODIFY and not compiled:
            self._written.add(path)
        elif mask & _CLOSE_READ or compiled or (mask & _CLOSE_WRITE and path not in self._written):
            self._read.add(path)

    @property
    def notice(self) -> str:
        """What the user should know; empty where all that is read is noticed."""
        if not self.problem:
            return self._limited
        return (
            f"{self.problem}: a change of any file in the project trains again, since your code "
            "may read it"
        )

    def pause(self) -> None:
        """Note nothing until `resume`: nobody works whose reading would count."""
        self._drain()
        self._paused = True

    def resume(self, known: Callable[[Path], bool]) -> None:
        """Go on; what has been read before is looked at as it is now."""
        self._drain()
        with self._lock:
            self._known = known
            self._paused = False
            self._looks = {path: look and _look(path) for path, look in self._looks.items()}
            self._written.clear()

    def reads(self, base: Path) -> dict[str, str]:
        """Digests of what was read so far, by path relative to `base`; "FOLDER/*SUFFIX" is which
        files of a kind a folder has, where somebody has listed them. One that was replaced, or
        written to, after it was opened has WRITTEN: nobody knows what of it was read.
        """
        self._drain()
        with self._lock:
            opened = {p for p in self._looks if p in self._read or p not in self._written}
            if self.problem:
                opened |= _files(self._folders)
            looks, listed = dict(self._looks), set(self._listed)
            replaced, written = set(self._replaced), self._read & self._written
        found: dict[str, str] = {}
        opened = {path for path in opened if not self._known(path)}
        for path in sorted(opened):
            before, now = looks.get(path), _look(path)
            if now is None and before is None:
                continue  # A temporary file.
            unsteady = path in replaced or path in written or now != before
            if before is not None and unsteady:
                found[_name(path, base)] = WRITTEN
                continue
            with suppress(OSError):
                found[_name(path, base)] = digest_of(path)
        for folder in sorted(listed - {f for f in listed if self._known(f)}):
            for suffix in sorted({path.suffix for path in opened if path.parent == folder}):
                name = _name(folder / f"*{suffix}", base)
                found[name] = digest(base, name)
        return found

    def close(self) -> None:
        if self._handle >= 0:
            os.write(self._stopping, b"x")
            self._thread.join()
            for handle in (self._handle, self._stop, self._stopping):
                os.close(handle)
            self._handle = -1


def changed(reads: Mapping[str, str], base: Path) -> str | None:
    """The first of what was read that is not as it was; None where all is."""
    return next((name for name, known in reads.items() if digest(base, name) != known), None)


def digest(base: Path, name: str) -> str:
    """What `Watch.reads` has of a name now."""
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
    """What tells that a file is as it was."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _source(path: Path) -> Path:
    """The file of a module that Python reads in its compiled form."""
    if path.suffix == ".pyc" and path.parent.name == _COMPILED:
        return path.parent.parent / f"{path.name.split('.')[0]}.py"
    return path


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.endswith("~")


def _is_no_input(name: str) -> bool:
    """Of a file; a folder may be called runs.log."""
    return _is_hidden(name) or name.endswith((".pyc", *_DOCUMENTS))


def _below(folders: Iterable[Path]) -> Iterator[Path]:
    """Folders and those in them, the nearest first; not those that hold no input of anybody's."""
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
    """Every file that may be read."""
    found = set()
    for folder in _below(folders):
        with suppress(OSError):
            found |= {path for path in folder.iterdir() if path.is_file()}
    return {path for path in found if not _is_no_input(path.name)}
