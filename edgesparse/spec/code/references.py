"""Resolves a name or reference in YAML to a Python function; the only place that does.

A built-in `name` is the function of that name in the module of that name in its package
(`models/mlp.py:mlp`); other distributions add names by entry points, whose values are references. A
`ref` is `file.py:function`, relative to the YAML file, `package.module:function`, or an entry
point's name. Parameters and digests are read from the source text, so that checking a pipeline
imports neither TensorFlow nor the user's code.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgesparse.spec.base import plugins
from edgesparse.spec.code.snapshot import content, is_carried, is_file, spec_of
from edgesparse.spec.code.sources import (
    MAX_REFERENCE,
    definitions_of,
    functions_of,
    local_imports,
    missing_import,
    module_source,
    shown,
)
from edgesparse.spec.errors import EdgesparseError, UsageError, did_you_mean, summary_of

FILE_MODULE = "edgesparse_ref_"
"""Prefix of the names of modules that were loaded by path."""
_PACKAGE = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Target:
    """A function located in source text, not imported yet."""

    label: str
    source: Path
    function: str
    module: str | None
    """Import name, or None when `source` is a file to be loaded by path."""


@cache
def builtin_names(package: str) -> tuple[str, ...]:
    """Return the names of the built-ins in a package such as "models": modules with a function of
    their name."""
    modules = sorted((_PACKAGE / package).glob("[a-z]*.py"))
    # Parsing all of them would take longer than the rest of a check.
    files = [file for file in modules if f"\ndef {file.stem}(" in file.read_text("utf-8")]
    return tuple(file.stem.replace("_", "-") if package == "data" else file.stem for file in files)


def find(
    package: str, name: str | None, ref: str | None, base: Path, *, classes: bool = False
) -> Target:
    """Locate the function behind `name` (a built-in of `package`) or `ref`; with `classes` also a
    class.

    Raises:
        UsageError: no such built-in, file, module or function; the message lists valid ones.
    """
    label = name or ref
    assert label is not None
    if name is not None:
        module, builtin = name.replace("-", "_"), builtin_names(package)
        if module in builtin or name in builtin:
            source = _PACKAGE / package / f"{module}.py"
            return Target(name, source, module, f"edgesparse.{package}.{module}")
    if name is not None or ":" not in label:
        ref = _plugin(package, label, is_reference=name is None)
    assert ref is not None
    return _locate(label, ref, base, classes=classes)


def _locate(label: str, ref: str, base: Path, *, classes: bool = False) -> Target:
    """Locate the function behind a reference, which messages call `label`."""
    source_name, colon, function = ref.rpartition(":")
    if not colon or not source_name or not function.isidentifier() or len(ref) > MAX_REFERENCE:
        raise UsageError(
            f"invalid reference {shown(ref)}; write file.py:function or module:function"
        )
    if source_name.endswith(".py"):
        # Resolved first: a file has the same path on every machine.
        resolved = _resolved(base / source_name)
        if resolved is None or not is_file(resolved):
            raise UsageError(f"no file {shown(source_name)} beside the YAML file")
        target = Target(label, resolved, function, None)
    else:
        target = Target(label, module_source(source_name, ref), function, source_name)
    functions = definitions_of(target.source) if classes else set(functions_of(target.source))
    if function not in functions:
        hint = did_you_mean(function, functions)
        kinds = "function or class" if classes else "function"
        raise UsageError(f"{source_name} has no {kinds} {function!r}{hint}")
    return target


def require_imports(target: Target) -> None:
    """Raise UsageError where a user's file imports a module that is not installed."""
    missing = missing_import(target.source) if target.module is None else None
    if missing is not None:
        line, name = missing
        raise UsageError(f"{target.source.name}:{line} imports {name}, which is not installed")


def choose(kind: str, name: str, builtin: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """Return a function by its name: a built-in, or an installed plug-in's, which is imported.

    Args:
        kind: the plural, such as "trackers"; the entry points are those of edgesparse.trackers.
        name: of the function.
        builtin: built-in functions by name.

    Raises:
        UsageError: the name is unknown, or the plug-in does not import.
    """
    if name in builtin:
        return builtin[name]
    installed = plugins(kind)
    if name not in installed:
        names = [*builtin, *installed]
        hint = did_you_mean(name, names) or f"; choose from {', '.join(names)}"
        raise UsageError(f"unknown {kind.removesuffix('s')} {shown(name)}{hint}")
    return load(_locate(name, installed[name], Path()))


def _plugin(package: str, name: str, *, is_reference: bool) -> str:
    installed = plugins(package)
    if name in installed:
        return installed[name]
    names = [*(() if is_reference else builtin_names(package)), *installed]
    hint = did_you_mean(name, names)
    if is_reference:
        raise UsageError(
            f"invalid reference {shown(name)}; write file.py:function or module:function{hint}"
        )
    raise UsageError(f"unknown {package.removesuffix('s')} {shown(name)}{hint}")


def _resolved(path: Path) -> Path | None:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):
        return None


def check_arguments(
    target: Target, args: Mapping[str, Any], supplied: tuple[str, ...] = ()
) -> list[tuple[str | None, str]]:
    """Compare YAML `args` with the function's parameters, without importing it.

    Args:
        target: the function.
        args: keyword arguments from the YAML file.
        supplied: parameters that edgesparse itself passes.

    Returns:
        (argument, message) pairs; the argument is None where it is missing.
    """
    arguments = functions_of(target.source)[target.function].args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = {a.arg for a in positional[: len(positional) - len(arguments.defaults)]}
    required |= {
        a.arg
        for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    }
    accepted = {a.arg for a in [*positional, *arguments.kwonlyargs]} - set(supplied)
    problems: list[tuple[str | None, str]] = []
    for name in args:
        if name in supplied:
            problems.append((name, f"{name!r} is passed by edgesparse; remove it"))
        elif name not in accepted and arguments.kwarg is None:
            hint = did_you_mean(name, accepted)
            problems.append((name, f"{target.label} has no argument {name!r}{hint}"))
    for name in sorted(required - set(args) - set(supplied)):
        problems.append((None, f"{target.label} requires the argument {name!r}"))
    return problems


def load(target: Target) -> Callable[..., Any]:
    """Import and return the function.

    Raises:
        UsageError: its file fails to import; the message has the reason.
    """
    try:
        if target.module is not None:
            module = importlib.import_module(target.module)
        else:
            module = _import_file(target.source)
    except Exception as error:
        kind = type(error).__name__
        raise UsageError(f"{target.label} cannot be imported: {kind}: {error}") from error
    function = getattr(module, target.function)
    if not callable(function):
        raise UsageError(f"{target.label} is not a function")
    return function  # type: ignore[no-any-return]


def call(target: Target, args: Mapping[str, Any], supplied: Mapping[str, Any]) -> Any:
    """Call the function with the YAML `args` and those of `supplied` that it has parameters for.

    Raises:
        UsageError: its file does not import, or it raises; the message says where.
    """
    arguments = functions_of(target.source)[target.function].args
    parameters = {a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
    accepted = {name: value for name, value in supplied.items() if name in parameters}
    function = load(target)
    try:
        return function(**accepted, **args)
    except EdgesparseError:
        raise
    except Exception as error:
        raise UsageError(f"{target.label}: {summary_of(error)}") from error


def _import_file(source: Path) -> Any:
    name = FILE_MODULE + hashlib.sha256(str(source).encode()).hexdigest()[:12]
    spec = spec_of(name, source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # The user's file can import its neighbours, as when run as a script. Those that it names are
    # carried and take precedence; other files of the folder never replace installed modules.
    sys.path.insert(len(sys.path) if is_carried(source) else 0, str(source.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(source.parent))
    return module


_LAYERS = b"edgesparse.layers"


def code(target: Target, read: Callable[[Path], bytes] = content) -> dict[Path, bytes]:
    """Return the function's file and every local file that it imports, with their contents.

    Raises:
        UsageError: a file is not valid Python.
        OSError: a file cannot be read.
    """
    files: dict[Path, bytes] = {}
    waiting = [target.source]
    while waiting:
        file = waiting.pop()
        # Files may import one another in a circle.
        if file not in files:
            files[file] = read(file)
            waiting.extend(local_imports(file, target.source.parent))
    return files


def digest(target: Target, read: Callable[[Path], bytes] = content) -> str:
    """Return the sha256 of `code`, and of edgesparse.layers, with those of plug-ins, where one of
    its files uses them."""
    folder = target.source.parent
    seen = {str(path.relative_to(folder)): text for path, text in code(target, read).items()}
    if any(_LAYERS in text for text in seen.values()):
        home = _PACKAGE / "layers"
        seen |= {f"layers/{file.name}": file.read_bytes() for file in home.glob("*.py")}
        for name, ref in plugins("layers").items():
            if any(name.encode() in text for text in seen.values()):
                seen[name] = _locate(name, ref, Path(), classes=True).source.read_bytes()
    total = hashlib.sha256()
    # With the length: content must not be able to imitate the end of a file.
    for name, text in sorted(seen.items()):
        total.update(f"{name}\0{len(text)}\0".encode() + text)
    return total.hexdigest()
