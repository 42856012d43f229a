"""Python source text that is read and never run: locations of modules, definitions in files.

Checking a pipeline must be safe for a pipeline that is not trusted: neither the user's code nor the
modules that it names are imported. File sizes are bounded, so that a check takes milliseconds.
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
    """Return the file of an importable module, without importing it or a package around it.

    Raises:
        UsageError: the reference is invalid, or the module is missing.
    """
    parts = module.split(".")
    if len(parts) > MAX_PARTS or not all(part.isidentifier() for part in parts):
        raise UsageError(
            f"invalid reference {shown(ref)}; write file.py:function or module:function"
        )
    missing = UsageError(f"no Python module {shown(module)}; install it or use file.py:function")
    first, *rest = parts
    candidates = _top_level(first)
    if candidates is None:
        raise missing
    for part in rest:
        candidates = _below(candidates, part)
    # A package is its __init__.py; a namespace package has nothing to call.
    for candidate in candidates:
        for file in (candidate, candidate / "__init__.py"):
            if file.suffix == ".py" and is_file(file):
                return file
    raise missing


def _top_level(name: str) -> list[Path] | None:
    """Return the file of a top-level module, or the folders of a package. Python's own finders,
    those of editable installs among them, look up names without importing."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        try:
            spec = None if find is None else find(name, None)
        except (ImportError, ValueError, AttributeError, OSError):
            continue
        if spec is None:
            continue
        if spec.submodule_search_locations is not None:
            return [Path(location) for location in spec.submodule_search_locations]
        return [Path(spec.origin)] if spec.origin else None
    return None


def _below(folders: Iterable[Path], name: str) -> list[Path]:
    """Return a module or package in a package of one or several folders. Not by finders, which need
    the parent package imported."""
    for folder in folders:
        if is_file(folder / name / "__init__.py"):
            return [folder / name]
        if is_file(folder / f"{name}.py"):
            return [folder / f"{name}.py"]
    return [folder / name for folder in folders if (folder / name).is_dir()]


def functions_of(source: Path) -> dict[str, ast.FunctionDef]:
    """Return the top-level functions of a file, by name. Raises UsageError."""
    return {node.name: node for node in tree(source).body if isinstance(node, ast.FunctionDef)}


def definitions_of(source: Path) -> set[str]:
    """Return the names of the top-level functions and classes of a file. Raises UsageError."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in tree(source).body if isinstance(node, kinds)}


def tree(source: Path) -> ast.Module:
    """Return a file's syntax tree. Raises UsageError, with the line of a syntax error."""
    try:
        return _parsed(bounded(source))
    except SyntaxError as error:
        raise UsageError(f"{source.name}:{error.lineno}: {error.msg}") from None
    except (RecursionError, MemoryError):
        raise UsageError(f"{source.name} cannot be parsed: nested too deeply") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{source.name} cannot be read: {reason}") from None


def bounded(source: Path) -> bytes:
    """Return the content of a source file.

    Raises:
        UsageError: it is larger than MAX_SOURCE_BYTES.
        OSError: it cannot be read.
    """
    text = content(source)
    if len(text) > MAX_SOURCE_BYTES:
        raise UsageError(
            f"{source.name} is larger than {MAX_SOURCE_BYTES:,} bytes; refer to a smaller file "
            "that imports it"
        )
    return text


# A check needs a file's functions, their parameters and its imports: three calls.
@lru_cache(maxsize=16)
def _parsed(text: bytes) -> ast.Module:
    return ast.parse(text)


def local_imports(file: Path, folder: Path) -> list[Path]:
    """Return the files in `folder` that a file imports, with the packages around them; not those
    whose name an installed module has, which Python imports instead."""
    stems: set[Path] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                stems |= _stems(folder, alias.name, ())
        elif isinstance(node, ast.ImportFrom):
            # from . import x: a file of the same package.
            start = file.parents[node.level - 1] if node.level else folder
            stems |= _stems(start, node.module or "", [alias.name for alias in node.names])
    files = []
    for stem in sorted(stem for stem in stems if folder in stem.parents):
        files += [p for p in (stem.with_suffix(".py"), stem / "__init__.py") if is_file(p)]
    # Files first: few imports have one, and looking for installed modules is slow.
    return [p for p in files if not _installed(p.relative_to(folder).parts[0].removesuffix(".py"))]


def missing_import(file: Path) -> tuple[int, str] | None:
    """Return the line and name of the first module that is imported at the top of a file, and is
    neither installed nor beside it; None where the file, or one beside it that it imports, changes
    where modules are found."""
    sources = map(bounded, [file, *local_imports(file, file.parent)])
    if any(word in source for source in sources for word in (b"sys.path", b"site.addsitedir")):
        return None
    folder = [str(file.parent)]
    for node in tree(file).body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            continue
        for name in (name.partition(".")[0] for name in names):
            is_there = (
                name in sys.stdlib_module_names
                or importlib.machinery.PathFinder.find_spec(name, folder) is not None
                or _top_level(name) is not None
            )
            if not is_there:
                return node.lineno, name
    return None


def _installed(name: str) -> bool:
    """Return True for a module of the standard library, or an installed one."""
    if name in sys.stdlib_module_names:
        return True
    libraries = [folder for folder in sys.path if Path(folder).name.endswith("-packages")]
    spec = importlib.machinery.PathFinder.find_spec(name, libraries)
    return spec is not None and spec.origin is not None


def _stems(start: Path, module: str, names: Iterable[str]) -> set[Path]:
    """Return paths without suffix: of a module, the packages around it, and names in it."""
    parts = module.split(".") if module else []
    around = {start.joinpath(*parts[: i + 1]) for i in range(len(parts))}
    return around | {start.joinpath(*parts, name) for name in names}


def exists(base: Path, pattern: str) -> bool:
    """Return True where a regular file or a folder below `base` has that name, or a file matches it
    as a glob."""
    try:
        path = base / pattern
        return path.is_file() or path.is_dir() or any(p.is_file() for p in base.glob(pattern))
    except (OSError, ValueError, NotImplementedError, IndexError):
        return False


def shown(text: str) -> str:
    """Return a reference for a message: quoted, shortened to a line."""
    return repr(text) if len(text) <= 80 else f"{text[:60]!r}..."
