"""What is heard of a job: its events, each once, within bounds of number, size and time.

A device may print anything; what is no event, or of another job, is left out. A device whose agent
says what cannot be is not believed at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgesparse.devices.agent.events import (
    PART_BYTES,
    Answers,
    Check,
    End,
    Event,
    Failed,
    ImpossibleError,
    Round,
    Start,
    Waiting,
    parse_event,
)
from edgesparse.devices.agent.job import Entry, Job
from edgesparse.devices.agent.samples import read
from edgesparse.devices.transport.interface import DeviceError
from edgesparse.spec.safe.text import clean

SILENCE_SECONDS = 60.0
"""Silence beyond a step's own time-out before a device is given up."""
WAITING_SECONDS = 3600.0
"""How long another job may hold the device."""
MAX_JUNK_BYTES = 50_000_000
"""What is no event, over one connection."""


class Lied(DeviceError):
    """The device's agent said what cannot be: nothing that it said counts."""


class Heard:
    """The job's events, each once, however often and whatever the device says."""

    def __init__(
        self, device: str, patience: float, job: Job, on_event: Callable[[Event], None]
    ) -> None:
        self.device = device
        self.job = job
        self.on_event = on_event
        self.events: list[Event] = []
        self.junk = ""
        self.ended = False
        self._entries = {entry.name: entry for entry in job.entries}
        self._forms = {entry.name: answer_forms(entry) for entry in job.entries}
        self._parts = {name: [form.parts for form in forms] for name, forms in self._forms.items()}
        self._seen: set[_Key] = set()
        self._failed: set[str] = set()
        self._limit_seconds = job.settings.timeout_seconds * patience + SILENCE_SECONDS
        self._junk_bytes = 0
        self._deadline = 0.0
        self._waits_until: float | None = None
        self.begin()

    def begin(self) -> None:
        """A connection begins."""
        self._junk_bytes = 0
        self._deadline = time.monotonic() + self._limit_seconds

    def hear(self, line: str) -> None:
        """Take in a line.

        Raises:
            Lied: it says what cannot be.
            DeviceError: more is printed than any job says.
        """
        try:
            event = parse_event(line)
        except ImpossibleError as error:
            raise self._lied(str(error)) from None
        # What nobody asked for is no event; nor is what was heard: a journal is repeated from its
        # start after each break.
        if event is None or not self._expected(event) or _key(event) in self._seen:
            self._noise(line, event)
            return
        if isinstance(event, Check):
            self._require_all(event)
        self._seen.add(_key(event))
        self.take(event)

    def take(self, event: Event) -> None:
        """An event that counts."""
        waits = isinstance(event, Waiting)
        self._waits_until = time.monotonic() + WAITING_SECONDS if waits else None
        # Bounded, since each event counts once and there are so many.
        self._deadline = time.monotonic() + self._limit_seconds
        if isinstance(event, Failed):
            self._failed.add(event.entry)
        self.ended = isinstance(event, End)
        self.events.append(event)
        self.on_event(event)

    def require_time(self) -> None:
        """Raise DeviceError when nothing new was heard for too long."""
        now = time.monotonic()
        if self._waits_until is not None:
            if now > self._waits_until:
                raise DeviceError(
                    f"device {self.device}: another job has held it for "
                    f"{WAITING_SECONDS / 60:.0f} minutes; end that one, or try later"
                )
        elif now > self._deadline:
            hint = f"; it said: {self.junk}" if self.junk else ""
            raise DeviceError(
                f"device {self.device}: nothing heard from the agent for "
                f"{self._limit_seconds:.0f} s{hint}"
            )

    def _require_all(self, check: Check) -> None:
        """Raise Lied for a check that left out what was asked."""
        entry = self._entries[check.entry]
        if entry.golden is not None and check.agreement is None:
            raise self._lied(f"{check.entry} was checked against nothing")
        forms = self._forms[check.entry]
        if forms and check.samples != forms[0].shape[0]:
            asked = f"{forms[0].shape[0]} samples were asked for"
            raise self._lied(f"{check.entry} answered {check.samples}, {asked}")

    def _lied(self, what: str) -> Lied:
        return Lied(
            f"device {self.device}: its agent says what cannot be: {what}; nothing that it "
            "measured counts"
        )

    def _noise(self, line: str, event: Event | None) -> None:
        if event is None:
            self.junk = clean(line.strip(), 200) or self.junk
        self._junk_bytes += len(line)
        parts = sum(sum(counts) for counts in self._parts.values())
        if self._junk_bytes > MAX_JUNK_BYTES + parts * 2 * PART_BYTES:
            raise DeviceError(
                f"device {self.device}: its agent prints without end; it said: {self.junk}"
            )

    def _expected(self, event: Event) -> bool:
        if isinstance(event, Start):
            return event.job == self.job.id
        if isinstance(event, End | Waiting):
            return True
        # One that failed says no more.
        if event.entry not in self._entries or event.entry in self._failed:
            return False
        if isinstance(event, Answers):
            parts = self._parts[event.entry]
            return event.output < len(parts) and event.part < parts[event.output]
        number = event.round if isinstance(event, Round | Failed) else None
        return number is None or number < self.job.rounds


_Key = tuple[str, str | None, int | None, int | None]


def _key(event: Event) -> _Key:
    entry = event.entry if isinstance(event, Answers | Check | Round | Failed) else None
    if isinstance(event, Answers):
        return (event.event, entry, event.output, event.part)
    return (event.event, entry, event.round if isinstance(event, Round) else None, None)


@dataclass(frozen=True)
class Form:
    """In which form an output's answers come: [n, ...]."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)

    @property
    def parts(self) -> int:
        return math.ceil(self.size_bytes / PART_BYTES)


def answer_forms(entry: Entry) -> list[Form]:
    """Of each output that an entry is to give for its samples; empty for none."""
    if entry.samples is None or entry.golden is None:
        return []
    count = len(next(iter(read(entry.samples, "x").values())))
    outputs = list(read(entry.golden, "y").values())
    reduced = entry.reduced or (False,) * len(outputs)
    return [
        Form((count, *values.shape[1:-1]), "<i2")
        if less
        else Form((count, *values.shape[1:]), "<f4")
        for values, less in zip(outputs, reduced, strict=True)
    ]
