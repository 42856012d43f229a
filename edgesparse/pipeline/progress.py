"""What a run tells while it goes on; the CLI shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StageStarted:
    label: str
    number: int
    total: int


@dataclass(frozen=True)
class StageProgress:
    """`share` is 0 to 1."""

    label: str
    share: float
    text: str


@dataclass(frozen=True)
class StageDone:
    label: str
    number: int
    total: int
    cached: bool = False


@dataclass(frozen=True)
class StageFailed:
    label: str
    variants: tuple[str, ...]
    error: str


@dataclass(frozen=True)
class Note:
    """Something the user should know."""

    text: str


Told = StageStarted | StageProgress | StageDone | StageFailed | Note
Listener = Callable[[Told], None]
