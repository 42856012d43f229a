"""Python source text that is read and never run: where a module lies, what a file defines.

Whoever checks a pipeline must not have to trust it: not the user's code, and not the modules that
it names, is imported for that. Files are bounded, so that none takes longer than a moment.
"""

from __future__ import annotations

import ast
import importlib.machinery
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from edgesparse.spec.code.snapshot import content, is_file
from edgesparse.spec.errors import UsageError

MAX_REFERENCE = 300
MAX_PARTS = 20
MAX_SOURCE_BYTES = 500_000


def module_source(module: str, ref: str) -> Path:
    """The file of an importable module, found without importing it or a package around it.

    Raises UsageError.
    """
    parts = module.split(".")
    if len(parts) > MAX_PARTS or not all(part.isidentifier() for part in parts):
        raise UsageError(f"{shown(ref)} is no reference; write file.py:function or module:function")
    missing = UsageError(f"no Python module {shown(module)}; install it or use file.py:function")
    first, *rest = parts
    found = _top_level(first)
    if found is None:
        raise missing
    for part in rest:
        found = _below(found, part)
    # A package is its __init__.py; one without has nothing to call.
    for place in found:
        for file in (place, place / "__init__.py"):
            if file.suffix == ".py" and is_file(file):
                return file
    raise missing


def _top_level(name: str) -> list[Path] | None:
    """The file of a top-level module, or the folders of a package. Python's own finders, which
    also know what is installed to be edited, look at names and places only."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        try:
            spec = None if find is None else find(name, None)
        except (ImportError, ValueError, AttributeError, OSError):
            continue
        if spec is None:
            continue
        if spec.submodule_search_locations is not None:
            return [Path(place) for place in spec.submodule_search_locations]
        return [Path(spec.origin)] if spec.origin else None
    return None


def _below(folders: Iterable[Path], name: str) -> list[Path]:
    """A module or package in a package that may be spread over several folders. By hand: finders
    ask for the parent, imported."""
    for folder in folders:
        if is_file(folder / name / "__init__.py"):
            return [folder / name]
        if is_file(folder / f"{name}.py"):
            return [folder / f"{name}.py"]
    return [folder / name for folder in folders if (folder / name).is_dir()]


def functions_of(source: Path) -> dict[str, ast.FunctionDef]:
    """The functions that a file defines at its top, by name. Raises UsageError."""
    return {node.name: node for node in tree(source).body if isinstance(node, ast.FunctionDef)}


def definitions_of(source: Path) -> set[str]:
    """The functions and classes that a file defines at its top. Raises UsageError."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in tree(source).body if isinstance(node, kinds)}


def tree(source: Path) -> ast.Module:
    """A file's syntax tree. Raises UsageError, with the line where there is one."""
    try:
        return _parsed(bounded(source))
    except SyntaxError as error:
        raise UsageError(f"{source.name}:{error.lineno}: {error.msg}") from None
    except (RecursionError, MemoryError):
        raise UsageError(f"{source.name} cannot be read: it is nested too deeply") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{source.name} cannot be read: {reason}") from None


def bounded(source: Path) -> bytes:
    """What a file of code holds. Raises UsageError where that is more than code is, or OSError."""
    found = content(source)
    if len(found) > MAX_SOURCE_BYTES:
        raise UsageError(
            f"{source.name} is larger than {MAX_SOURCE_BYTES:,} bytes; refused: name a smaller "
            "file that imports it"
        )
    return found


# One check asks for a file's functions, their parameters and its imports.
@lru_cache(maxsize=16)
def _parsed(text: bytes) -> ast.Module:
    return ast.parse(text)


def local_imports(file: Path, folder: Path) -> list[Path]:
    """The files in `folder` that a file imports, with the packages around them; none of them
    replaces a module that is installed."""
    stems: set[Path] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                stems |= _stems(folder, alias.name, ())
        elif isinstance(node, ast.ImportFrom):
            # from . import x: a file of the same package.
            start = file.parents[node.level - 1] if node.level else folder
            stems |= _stems(start, node.module or "", [alias.name for alias in node.names])
    found = []
    for stem in sorted(stem for stem in stems if folder in stem.parents):
        found += [p for p in (stem.with_suffix(".py"), stem / "__init__.py") if is_file(p)]
    # Of few imports there is a file, so that few are looked for among what is installed.
    return [p for p in found if not _installed(p.relative_to(folder).parts[0].removesuffix(".py"))]


def _installed(name: str) -> bool:
    """Whether a module of that name is Python's own, or was installed."""
    if name in sys.stdlib_module_names:
        return True
    libraries = [place for place in sys.path if Path(place).name.endswith("-packages")]
    spec = importlib.machinery.PathFinder.find_spec(name, libraries)
    return spec is not None and spec.origin is not None


def _stems(start: Path, module: str, names: Iterable[str]) -> set[Path]:
    """Files without their suffix: of a module, the packages around it, and names in it."""
    parts = module.split(".") if module else []
    around = {start.joinpath(*parts[: i + 1]) for i in range(len(parts))}
    return around | {start.joinpath(*parts, name) for name in names}


def exists(base: Path, pattern: str) -> bool:
    """Whether a regular file or a folder has that name below `base`, or matches it as a glob."""
    try:
        path = base / pattern
        return path.is_file() or path.is_dir() or any(p.is_file() for p in base.glob(pattern))
    except (OSError, ValueError, NotImplementedError, IndexError):
        return False


def shown(text: str) -> str:
    """A reference in a message: quoted, and not longer than a line."""
    return repr(text) if len(text) <= 80 else f"{text[:60]!r}..."
