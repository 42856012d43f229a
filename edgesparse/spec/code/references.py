"""The one place where a name or reference in YAML becomes a Python function.

A built-in `name` is the function of that name in the module of that name in its room
(`models/mlp.py:mlp`). A `ref` is `file.py:function`, relative to the YAML file, or
`package.module:function`. Parameters and digests are read from the source text, so that checking a
pipeline imports neither TensorFlow nor the user's code.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesparse.spec.code.snapshot import content, is_carried, is_file, spec_of
from edgesparse.spec.code.sources import (
    MAX_REFERENCE,
    definitions_of,
    functions_of,
    local_imports,
    module_source,
    shown,
)
from edgesparse.spec.errors import EdgesparseError, UsageError, did_you_mean, summary_of

FILE_MODULE = "edgesparse_ref_"
"""How the names of modules begin that were loaded by the path of their file."""
_PACKAGE = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Target:
    """A function found in source text, not imported yet."""

    label: str
    source: Path
    function: str
    module: str | None
    """Import name, or None when `source` is a file to be loaded by path."""


def builtin_names(room: str) -> tuple[str, ...]:
    """Names of the built-ins in a room such as "models": one module each."""
    files = sorted((_PACKAGE / room).glob("[a-z]*.py"))
    return tuple(file.stem.replace("_", "-") if room == "data" else file.stem for file in files)


def find(
    room: str, name: str | None, ref: str | None, base: Path, *, classes: bool = False
) -> Target:
    """Locate the function behind `name` (a built-in of `room`) or `ref`; with `classes` also a
    class.

    Raises:
        UsageError: no such built-in, file, module or function; the message says what there is.
    """
    if name is not None:
        if name.replace("-", "_") not in builtin_names(room) and name not in builtin_names(room):
            known = builtin_names(room)
            raise UsageError(f"unknown {room} name {shown(name)}{did_you_mean(name, known)}")
        module = name.replace("-", "_")
        source = _PACKAGE / room / f"{module}.py"
        return Target(name, source, module, f"edgesparse.{room}.{module}")
    assert ref is not None
    place, colon, function = ref.rpartition(":")
    if not colon or not place or not function.isidentifier() or len(ref) > MAX_REFERENCE:
        raise UsageError(f"{shown(ref)} is no reference; write file.py:function or module:function")
    if place.endswith(".py"):
        # Resolved first: so it is called on every machine.
        resolved = _resolved(base / place)
        if resolved is None or not is_file(resolved):
            raise UsageError(f"no file {shown(place)} beside the YAML file")
        target = Target(ref, resolved, function, None)
    else:
        target = Target(ref, module_source(place, ref), function, place)
    functions = definitions_of(target.source) if classes else set(functions_of(target.source))
    if function not in functions:
        hint = did_you_mean(function, functions)
        wanted = "function or class" if classes else "function"
        raise UsageError(f"{place} has no {wanted} {function!r}{hint}")
    return target


def _resolved(path: Path) -> Path | None:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):
        return None


def check_arguments(
    target: Target, args: Mapping[str, Any], given: tuple[str, ...] = ()
) -> list[tuple[str | None, str]]:
    """Compare YAML `args` with the function's parameters, without importing it.

    `given` names the parameters that edgesparse itself passes. Returns (argument, message) pairs;
    the argument is None where one is missing.
    """
    arguments = functions_of(target.source)[target.function].args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = {a.arg for a in positional[: len(positional) - len(arguments.defaults)]}
    required |= {
        a.arg
        for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    }
    known = {a.arg for a in [*positional, *arguments.kwonlyargs]} - set(given)
    problems: list[tuple[str | None, str]] = []
    for name in args:
        if name in given:
            problems.append((name, f"{name!r} is passed by edgesparse; leave it out"))
        elif name not in known and arguments.kwarg is None:
            hint = did_you_mean(name, known)
            problems.append((name, f"{target.label} takes no argument {name!r}{hint}"))
    for name in sorted(required - set(args) - set(given)):
        problems.append((None, f"{target.label} needs the argument {name!r}"))
    return problems


def load(target: Target) -> Callable[..., Any]:
    """Import the function. Raises UsageError with the reason when its file fails to import."""
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


def call(target: Target, args: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Call the function with the YAML `args` and those of `given` that it has parameters for.

    Raises:
        UsageError: its file does not import, or it raises; the message says where.
    """
    arguments = functions_of(target.source)[target.function].args
    known = {a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
    accepted = {name: value for name, value in given.items() if name in known}
    function = load(target)
    try:
        return function(**accepted, **args)
    except EdgesparseError:
        raise
    except Exception as error:
        raise UsageError(f"{target.label}: {summary_of(error)}") from error


def _import_file(source: Path) -> Any:
    name = FILE_MODULE + hashlib.sha256(str(source).encode()).hexdigest()[:12]
    found = spec_of(name, source)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    # The user's file may import its neighbours, as it can when run as a script. Those that it names
    # are carried, and found first; so that nothing else there replaces what is installed.
    sys.path.insert(len(sys.path) if is_carried(source) else 0, str(source.parent))
    try:
        found.loader.exec_module(module)
    finally:
        sys.path.remove(str(source.parent))
    return module


_LAYERS = b"edgesparse.layers"


def code(target: Target, read: Callable[[Path], bytes] = content) -> dict[Path, bytes]:
    """The function's file and every local file that it imports. Raises UsageError, OSError."""
    found: dict[Path, bytes] = {}
    waiting = [target.source]
    while waiting:
        file = waiting.pop()
        # Files may import one another in a circle.
        if file not in found:
            found[file] = read(file)
            waiting.extend(local_imports(file, target.source.parent))
    return found


def digest(target: Target, read: Callable[[Path], bytes] = content) -> str:
    """sha256 over `code`, by content; with our layers where one of them uses those."""
    folder = target.source.parent
    seen = {str(path.relative_to(folder)): text for path, text in code(target, read).items()}
    if any(_LAYERS in text for text in seen.values()):
        home = _PACKAGE / "layers"
        seen |= {f"layers/{file.name}": file.read_bytes() for file in home.glob("*.py")}
    total = hashlib.sha256()
    # With the length: where one file ends must not be a matter of content.
    for name, text in sorted(seen.items()):
        total.update(f"{name}\0{len(text)}\0".encode() + text)
    return total.hexdigest()
