"""The events of a job as they arrive: each once, within limits of number, size and time.

A device can print anything. What is not an event, or is one of another job, is ignored. Nothing is
used of a device whose agent sends an invalid event.
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
    InvalidEventError,
    Round,
    Start,
    Waiting,
    parse_event,
)
from edgesparse.devices.agent.job import Entry, Job
from edgesparse.devices.agent.sample_files import read_arrays
from edgesparse.devices.transport.interface import DeviceError
from edgesparse.spec.safe.text import clean

SILENCE_SECONDS = 60.0
"""Silence beyond a step's own time-out after which a device counts as hanging."""
WAITING_SECONDS = 3600.0
"""How long another job can hold the device before this one is given up."""
MAX_JUNK_BYTES = 50_000_000
"""Output of one connection that is not an event."""


class ProtocolError(DeviceError):
    """The device's agent sent an invalid event; its measurements are discarded."""


class EventStream:
    """Collects a job's events, each once, from whatever lines the device sends.

    Args:
        device: its name, for messages.
        clock_slowdown: seconds on this machine per second on the device; see Transport.
        job: the job; events about anything else are ignored.
        on_event: called with each event.
    """

    def __init__(
        self, device: str, clock_slowdown: float, job: Job, on_event: Callable[[Event], None]
    ) -> None:
        self.device = device
        self.job = job
        self.on_event = on_event
        self.events: list[Event] = []
        self.last_output = ""
        """The last line that is not an event, for messages."""
        self.ended = False
        self._entries = {entry.name: entry for entry in job.entries}
        self._outputs = {entry.name: output_specs(entry) for entry in job.entries}
        self._parts = {
            name: [spec.parts for spec in specs] for name, specs in self._outputs.items()
        }
        self._seen: set[_Key] = set()
        self._failed: set[str] = set()
        self._limit_seconds = job.settings.timeout_seconds * clock_slowdown + SILENCE_SECONDS
        self._junk_bytes = 0
        self._deadline = 0.0
        self._waits_until: float | None = None
        self.start_connection()

    def start_connection(self) -> None:
        """Reset the limits of one connection."""
        self._junk_bytes = 0
        self._deadline = time.monotonic() + self._limit_seconds

    def feed(self, line: str) -> None:
        """Process a line of the agent's output.

        Raises:
            ProtocolError: it is an event with invalid data.
            DeviceError: there is more output than any job has.
        """
        try:
            event = parse_event(line)
        except InvalidEventError as error:
            raise self._protocol_error(str(error)) from None
        # A journal is repeated from its start after each reconnect: known events are skipped.
        if event is None or not self._is_expected(event) or _key(event) in self._seen:
            self._count_junk(line, event)
            return
        if isinstance(event, Check):
            self._require_complete(event)
        self._seen.add(_key(event))
        self.add(event)

    def add(self, event: Event) -> None:
        """Record a valid event and pass it to the listener."""
        waits = isinstance(event, Waiting)
        self._waits_until = time.monotonic() + WAITING_SECONDS if waits else None
        # Bounded, since each event counts once and their number is limited.
        self._deadline = time.monotonic() + self._limit_seconds
        if isinstance(event, Failed):
            self._failed.add(event.entry)
        self.ended = isinstance(event, End)
        self.events.append(event)
        self.on_event(event)

    def check_deadline(self) -> None:
        """Raise DeviceError when no new event arrived for too long."""
        now = time.monotonic()
        if self._waits_until is not None:
            if now > self._waits_until:
                raise DeviceError(
                    f"device {self.device} is locked by another job since "
                    f"{WAITING_SECONDS / 60:.0f} min; stop it or retry later"
                )
        elif now > self._deadline:
            hint = f"; last output: {self.last_output}" if self.last_output else ""
            raise DeviceError(
                f"device {self.device}: no output from the agent for {self._limit_seconds:.0f} s"
                f"{hint}"
            )

    def _require_complete(self, check: Check) -> None:
        """Raise ProtocolError for a check that lacks the agreement or samples of its entry."""
        entry = self._entries[check.entry]
        if entry.golden is not None and check.agreement is None:
            raise self._protocol_error(f"{check.entry}: no agreement with the golden outputs")
        specs = self._outputs[check.entry]
        if specs and check.samples != specs[0].shape[0]:
            raise self._protocol_error(
                f"{check.entry}: outputs of {check.samples} samples, expected {specs[0].shape[0]}"
            )

    def _protocol_error(self, problem: str) -> ProtocolError:
        return ProtocolError(
            f"device {self.device}: invalid data from the agent ({problem}); its measurements were "
            "discarded"
        )

    def _count_junk(self, line: str, event: Event | None) -> None:
        if event is None:
            self.last_output = clean(line.strip(), 200) or self.last_output
        self._junk_bytes += len(line)
        parts = sum(sum(counts) for counts in self._parts.values())
        limit = MAX_JUNK_BYTES + parts * 2 * PART_BYTES
        if self._junk_bytes > limit:
            raise DeviceError(
                f"device {self.device}: the agent sent more than {limit / 1e6:.0f} MB of "
                f"unexpected output; last line: {self.last_output}"
            )

    def _is_expected(self, event: Event) -> bool:
        if isinstance(event, Start):
            return event.job == self.job.id
        if isinstance(event, End | Waiting):
            return True
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
class OutputSpec:
    """Shape [n, ...] and dtype of an output in the agent's answers."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)

    @property
    def parts(self) -> int:
        return math.ceil(self.size_bytes / PART_BYTES)


def output_specs(entry: Entry) -> list[OutputSpec]:
    """Return the spec of each output that an entry answers its samples with; empty without any."""
    if entry.samples is None or entry.golden is None:
        return []
    count = len(next(iter(read_arrays(entry.samples, "x").values())))
    outputs = list(read_arrays(entry.golden, "y").values())
    reduced = entry.reduced or (False,) * len(outputs)
    return [
        OutputSpec((count, *values.shape[1:-1]), "<i2")
        if is_reduced
        else OutputSpec((count, *values.shape[1:]), "<f4")
        for values, is_reduced in zip(outputs, reduced, strict=True)
    ]
