"""Snapshot of the user's code when a run began, for the processes that run its stages.

Keys are digests of that text, so it is what is imported: an edit during a run has no effect, and a
machine without the project's folder runs the same code. Files keep the paths that they have on the
machine where the run began.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_files: dict[Path, bytes] = {}


def carry(files: Mapping[str, bytes]) -> None:
    """Import these files from now on in place of those on the disk."""
    _files.clear()
    _files.update({Path(path): content for path, content in files.items()})
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    for path, content in _files.items():
        # inspect.getsource, which tf.function uses, returns the code that runs.
        lines = content.decode("utf-8", "replace").splitlines(keepends=True)
        linecache.cache[str(path)] = (len(content), None, lines, str(path))


def content(path: Path) -> bytes:
    """Return the content of a source file. Raises OSError."""
    carried = _files.get(path)
    return path.read_bytes() if carried is None else carried


def is_file(path: Path) -> bool:
    """Return True for an existing or carried file; False also for an invalid file name."""
    try:
        return path in _files or path.is_file()
    except (OSError, ValueError):
        return False


def is_carried(path: Path) -> bool:
    return path in _files


def spec_of(name: str, path: Path) -> importlib.machinery.ModuleSpec | None:
    """Return the import spec of a file: from the snapshot, or from the disk."""
    if path not in _files:
        return importlib.util.spec_from_file_location(name, path)
    inside = [str(path.parent)] if path.name == "__init__.py" else None
    return importlib.util.spec_from_file_location(
        name, path, loader=_Loader(name, str(path)), submodule_search_locations=inside
    )


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a carried file, without a cache on the disk."""

    def get_data(self, path: Any) -> bytes:
        return _files[Path(path)]

    def path_stats(self, path: Any) -> Mapping[str, Any]:
        raise OSError(f"{path} has no compiled form")

    def set_data(self, *_: Any, **__: Any) -> None:
        pass


class _Finder(importlib.abc.MetaPathFinder):
    """Finds carried files that others import, as if their folder came first in sys.path."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        last = name.rpartition(".")[2]
        folders = {file.parent: None for file in _files} if path is None else map(Path, path)
        for folder in folders:
            for file in (folder / last / "__init__.py", folder / f"{last}.py"):
                if file in _files:
                    return spec_of(name, file)
            if any(folder / last in file.parents for file in _files):
                # A package without __init__.py.
                spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
                spec.submodule_search_locations = [str(folder / last)]
                return spec
        return None
