"""Errors that a user can cause, and the suggestions that go with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class EdgesparseError(Exception):
    """One clear message: what went wrong, where, and what to do. Never shown with a traceback."""

    exit_code = 1


class UsageError(EdgesparseError):
    """The command or a file it names is wrong: nothing has been run."""

    exit_code = 2


class Problem(NamedTuple):  # Not a dataclass: 'edgesparse --help' imports this, and no more.
    """One mistake in a YAML file; `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class SpecError(UsageError):
    """All mistakes found in one YAML file, in the order in which they stand there."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion to append to a message, or the list of what is known, or nothing."""
    import difflib

    names = sorted(set(known))
    near = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(repr(name) for name in near) + "?"
    if names and len(names) <= 20:
        return "; known: " + ", ".join(names)
    return ""
