"""Events of a run for a listener, such as the CLI's progress bars.

A listener is called from any thread; the events of a run never overlap.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesparse.measure.results import Results
    from edgesparse.measure.rows import Row


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
    """A message for the user."""

    text: str


@dataclass(frozen=True)
class RowsReady:
    """Rows of a run before its end: of variants that are ready and not measured yet, or measured
    briefly, or finished when the run was interrupted."""

    results: Results = field(repr=False)

    @property
    def rows(self) -> Sequence[Row]:
        return self.results.rows


@dataclass(frozen=True)
class BenchmarkStarted:
    """Rows of a device that are about to be measured: what is known of their files."""

    rows: tuple[Row, ...] = field(repr=False)


@dataclass(frozen=True)
class BenchmarkDone:
    """Rows of a device after their measurement, also where it failed."""

    rows: tuple[Row, ...] = field(repr=False)


@dataclass(frozen=True)
class RoundMeasured:
    """The median latency of a variant in one round of a benchmark; rounds count from 1."""

    device: str
    runtime: str
    threads: int
    variant: str
    round: int
    rounds: int
    p50_ms: float


RunEvent = (
    StageStarted
    | StageProgress
    | StageDone
    | StageFailed
    | Note
    | RowsReady
    | BenchmarkStarted
    | BenchmarkDone
    | RoundMeasured
)
Listener = Callable[[RunEvent], None]


def null_listener(_: RunEvent) -> None:
    """Ignore an event."""


def both(first: Listener, second: Listener) -> Listener:
    """Return a listener that passes every event to two others."""

    def listen(event: RunEvent) -> None:
        first(event)
        second(event)

    return listen


def thread_safe(listener: Listener) -> Listener:
    """Return a listener that several threads can call."""
    lock = threading.Lock()

    def tell(event: RunEvent) -> None:
        with lock:
            listener(event)

    return tell


@contextmanager
def stage_progress(listener: Listener, label: str) -> Iterator[Callable[[float, str], None]]:
    """Yield a function that reports progress once; its first call starts the stage's display."""
    last: StageProgress | None = None

    def progress(share: float, text: str) -> None:
        nonlocal last
        event = StageProgress(label, share, text)
        if last is None:
            listener(StageStarted(label, 1, 1))
        if event != last:
            listener(event)
        last = event

    yield progress
    if last is not None:
        listener(StageDone(label, 1, 1))
