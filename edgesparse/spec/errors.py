"""Errors that a user can cause, and the suggestions that go with them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class EdgesparseError(Exception):
    """One clear message: what went wrong, where, and what to do. Never shown with a traceback."""

    exit_code = 1


class UsageError(EdgesparseError):
    """The command or a file it names is wrong: nothing has been run."""

    exit_code = 2


def missing_extra(what: str, library: str, extra: str) -> UsageError:
    """Return the error for a feature whose optional library is not installed."""
    return UsageError(
        f"{what} requires {library}, which is not installed: pip install 'edgesparse[{extra}]'"
    )


def require_extra(what: str, library: str, module: str, extra: str) -> None:
    """Raise UsageError where an optional library is not installed; it is not imported."""
    from importlib.util import find_spec  # --help imports this module, and no more.

    try:
        installed = find_spec(module) is not None
    except ValueError:  # Blocked in sys.modules.
        installed = False
    if not installed:
        raise missing_extra(what, library, extra)


class Problem(NamedTuple):  # Not a dataclass: 'edgesparse --help' imports this, and no more.
    """One mistake in a YAML file; `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class SpecError(UsageError):
    """All mistakes in one YAML file, by line and column."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


# Beginnings of lines with the location of an error rather than its cause.
_AROUND = (
    "Graph execution error", "Exception encountered when calling", "Detected at node",
    "Call arguments received", "Arguments received by", "in user code", "File \"", "•", "[[{{",
    "Original stack trace", "^", "{{node", "Errors may have originated", "Input Source operations",
)  # fmt: skip


_FRAME = re.compile(
    r"\{\{[^}]*\}\} |Error in user-defined function passed to \S+ transformation with iterator: "
    r"\S+: "
)
"""Text before the cause in the same line."""


def cause_of(error: BaseException, limit: int = 300) -> str:
    """Return the line of an error's text that has the cause, cut between words at `limit`.

    TensorFlow and Keras put several lines of context around it.
    """
    # Keras: "Error when deserializing class ... using config=... Exception encountered: the cause".
    cause = str(error).strip().rpartition("Exception encountered: ")[2]
    lines = [line.strip() for line in cause.splitlines() if line.strip()]
    causes = [line for line in lines if not line.startswith(_AROUND)]
    last = any(line.startswith(("Graph execution error", "in user code")) for line in lines)
    text = (causes[-1] if last else causes[0]) if causes else (lines or [type(error).__name__])[0]
    text = _FRAME.sub("", text.partition(" [Op:")[0])
    if len(text) <= limit:
        return text
    return text[:limit].rpartition(" ")[0] + " ..."


def summary_of(error: BaseException) -> str:
    """Return an error's location in the user's code, its type and its cause, in a line."""
    kind, cause = f"{type(error).__name__}: ", cause_of(error)
    # TensorFlow raises errors of a traced function again, with their type in the text.
    return _place_of(error) + kind + cause.removeprefix(kind)


_TRACED = re.compile(r'^\s*File "([^"]+)", line (\d+), in ', re.MULTILINE)
"""TensorFlow's location of a function that AutoGraph has rewritten."""


def _place_of(error: BaseException) -> str:
    """Return the last location in the user's code, as "file.py:3: "; empty for other errors."""
    import sys
    import traceback
    from pathlib import Path

    package, system = Path(__file__).parent.parent, Path(sys.prefix)
    location = ""
    frames = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    frames += [(file, int(line)) for file, line in _TRACED.findall(str(error))]
    for file, line in frames:
        path = Path(file)
        if path.name.startswith("__autograph_generated"):
            continue
        libraries = "site-packages" in path.parts or f"python3.{sys.version_info[1]}" in path.parts
        if path.suffix == ".py" and package not in path.parents and not libraries:
            location = f"{path.name}:{line}: " if system not in path.parents else location
    return location


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return a suggestion to append to a message, or the list of valid choices, or nothing."""
    import difflib

    names = sorted(set(choices))
    near = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(repr(name) for name in near) + "?"
    if names and len(names) <= 20:
        return "; choose from " + ", ".join(names)
    return ""
