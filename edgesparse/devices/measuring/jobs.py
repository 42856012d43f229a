"""Puts models and the agent on a device and carries out a job there."""

from __future__ import annotations

import base64
import binascii
import json
import math
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgesparse.devices.measuring.events import (
    Answers,
    Check,
    End,
    Event,
    Failed,
    HostInfo,
    Round,
    Start,
    Waiting,
    parse_event,
)
from edgesparse.devices.transport.interface import (
    ConnectionLost,
    DeviceError,
    Progress,
    Transport,
    Upload,
    upload,
)
from edgesparse.devices.transport.processes import Channel
from edgesparse.spec.files import file_digest

PROGRAMS = Path(__file__).parent.with_name("ondevice")
AGENT = PROGRAMS / "agent.py"
DETACHED = PROGRAMS / "detached.py"
POLL_SECONDS = 0.5
SILENCE_SECONDS = 60.0
"""Silence beyond a step's own time-out before a device is given up."""
STOP_SECONDS = 10.0
# A link that breaks but brings events each time may go on for ever; one that brings none is given
# up.
BREAKS_WITHOUT_PROGRESS = 3


class Stopped(DeviceError):
    """The work was told to stop."""


@dataclass(frozen=True)
class Entry:
    """One model on one runtime with one number of threads.

    `samples` is an .npz with x [n, ...], which the device answers, and y [n], which it does not
    look at; `golden` one with golden_x and golden_y, of which the first `golden_samples` are used
    (default: all). `delegate` is a name, or the library and options of an external one. `place` is
    where the model lies on the device already.
    """

    name: str
    model: Path
    runtime: str
    delegate: str | Mapping[str, Any]
    threads: int
    golden: Path | None = None
    samples: Path | None = None
    tolerance: float = 0.0
    golden_samples: int | None = None
    place: str | None = None


@dataclass(frozen=True)
class Settings:
    """How a round measures; see edgesparse.spec.pipeline.Benchmark."""

    warmup_runs: int
    warmup_seconds: float
    runs: int
    seconds: float
    timeout_seconds: float


@dataclass(frozen=True)
class Job:
    """Entries to check and then to measure in `rounds` interleaved rounds (0: check only)."""

    id: str
    rounds: int
    settings: Settings
    entries: tuple[Entry, ...]


def host_info(transport: Transport) -> HostInfo:
    """What the device is and which runtimes its Python has."""
    (agent,) = put_programs(transport, AGENT)
    done = transport.run([transport.python, agent, "info"])
    try:
        return HostInfo.model_validate_json(done.stdout.strip().splitlines()[-1])
    except (ValidationError, IndexError):
        raise DeviceError(
            f"device {transport.name}: {transport.python} cannot run the agent: {done.said}"
        ) from None


def round_medians(events: Sequence[Event]) -> dict[str, list[float]]:
    """The median latency of each round, in ns, by entry."""
    found: dict[str, list[float]] = {}
    for event in events:
        if isinstance(event, Round):
            found.setdefault(event.entry, []).append(statistics.median(event.latency_ns))
    return found


def answers_of(entry: Entry, events: Iterable[Event]) -> NDArray[np.float32] | None:
    """Outputs float32 [n, ...] that an entry gave for its samples; None where it gave none, or not
    all of them."""
    if entry.samples is None or entry.golden is None:
        return None
    parts = [e for e in events if isinstance(e, Answers) and e.entry == entry.name]
    with np.load(entry.samples) as samples, np.load(entry.golden) as golden:
        shape = (len(samples["y"]), *golden["golden_y"].shape[1:])
    try:
        content = b"".join(
            base64.b64decode(part.data, validate=True)
            for part in sorted(parts, key=lambda part: part.part)
        )
    except binascii.Error:
        return None
    if not parts or len(content) != 4 * math.prod(shape):
        return None
    return np.frombuffer(content, "<f4").reshape(shape)


def run_job(
    transport: Transport,
    job: Job,
    on_event: Callable[[Event], None] = lambda _: None,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> list[Event]:
    """Carry out the job; returns its events.

    A broken connection is made again and the job goes on: the device keeps a journal, and no
    finished round is repeated. Setting `stop`, or an exception in `on_event`, ends the work on the
    device.

    Raises:
        DeviceError: the agent does not finish, or the device stays away.
        Stopped: `stop` was set.
    """
    # Named after the job: attaching to the same id again finds its journal and its keeper.
    folder = f"{transport.workdir}/jobs/{job.id}"
    agent, detached = _put_job(transport, job, folder, progress)
    argv = [
        transport.python,
        detached,
        "attach",
        folder,
        agent,
        f"{transport.lease_seconds:g}",
    ]
    heard = _Heard(job, on_event)
    breaks = 0
    while not heard.ended:
        before = len(heard.events)
        problem = ""
        try:
            with transport.open(argv) as channel:
                _listen(transport, channel, heard, stop)
        except ConnectionLost as error:
            problem = str(error)
        except Stopped:
            with suppress(DeviceError):
                transport.remove_folder(folder)
            raise
        if heard.ended:
            break
        # An event heard since means that the link works at times.
        breaks = 1 if len(heard.events) > before else breaks + 1
        if breaks > BREAKS_WITHOUT_PROGRESS:
            hint = f": {heard.junk}" if heard.junk else ""
            raise DeviceError(
                problem or f"device {transport.name}: the agent ended before its job was done{hint}"
            )
        if problem:
            transport.reconnect()
    transport.remove_folder(folder)
    return heard.events


class _Heard:
    """The job's events, each once, however often and whatever the device says."""

    def __init__(self, job: Job, on_event: Callable[[Event], None]) -> None:
        self.job = job
        self.names = {entry.name for entry in job.entries}
        self.on_event = on_event
        self.events: list[Event] = []
        self.seen: set[tuple[str, str | None, int | None]] = set()
        self.junk = ""
        self.ended = False
        self.waiting = False

    def hear(self, line: str) -> bool:
        """Take in a line; False when it says nothing new."""
        event = parse_event(line)
        # A device may print anything, and may lie: what nobody asked for is no event.
        if event is None or not self._expected(event):
            self.junk = line.strip()[:200] or self.junk
            return False
        entry = event.entry if isinstance(event, Answers | Check | Round | Failed) else None
        number = event.round if isinstance(event, Round | Failed) else None
        number = event.part if isinstance(event, Answers) else number
        # A journal is repeated from its start after each break; what was heard is not heard twice.
        key = (event.event, entry, number)
        if key in self.seen:
            return False
        self.seen.add(key)
        self.waiting = isinstance(event, Waiting)
        self.ended = isinstance(event, End)
        self.events.append(event)
        self.on_event(event)
        return True

    def _expected(self, event: Event) -> bool:
        if isinstance(event, Start):
            return event.job == self.job.id
        if isinstance(event, Round) and event.round >= self.job.rounds:
            return False
        return isinstance(event, End | Waiting) or event.entry in self.names


def _listen(
    transport: Transport, channel: Channel, heard: _Heard, stop: threading.Event | None
) -> None:
    """Hear the agent until it ends. Leaves with the agent stopped if this host gives up."""
    limit_seconds = heard.job.settings.timeout_seconds * transport.patience + SILENCE_SECONDS
    deadline = time.monotonic() + limit_seconds
    try:
        while not heard.ended:
            if stop is not None and stop.is_set():
                raise Stopped(f"device {transport.name}: stopped")
            try:
                line = channel.read_line(POLL_SECONDS)
            except EOFError:
                return
            if (line is not None and heard.hear(line)) or heard.waiting:
                deadline = time.monotonic() + limit_seconds
            elif time.monotonic() > deadline:
                hint = f"; it said: {heard.junk}" if heard.junk else ""
                raise DeviceError(
                    f"device {transport.name}: nothing heard from the agent for "
                    f"{limit_seconds:.0f} s{hint}"
                )
    except BaseException:
        # The agent lives on without us by design, so that it must be told.
        channel.send("stop\n")
        _drain(channel)
        raise


def _drain(channel: Channel) -> None:
    """Wait until the other side has ended what it was told to end."""
    deadline = time.monotonic() + STOP_SECONDS
    try:
        while time.monotonic() < deadline:
            channel.read_line(POLL_SECONDS)
    except EOFError:
        pass


def _put_job(
    transport: Transport, job: Job, folder: str, progress: Progress | None
) -> tuple[str, str]:
    """Copy everything that the job needs; the places of agent.py and detached.py."""
    places: dict[Path, str] = {}
    uploads: list[Upload] = []

    def place(file: Path | None) -> str | None:
        if file is None:
            return None
        if file not in places:
            digest = file_digest(file)
            # By content: the same model in two jobs, or of two projects, is sent once.
            places[file] = f"{transport.workdir}/files/{digest}{file.suffix}"
            uploads.append(Upload(file, places[file], digest))
        return places[file]

    text = json.dumps(_request(transport, job, place))
    with tempfile.TemporaryDirectory() as temporary:
        request = Path(temporary, "job.json")
        request.write_text(text)
        programs = [_program(transport, path) for path in (AGENT, DETACHED)]
        uploads += [upload(request, f"{folder}/job.json"), *programs]
        transport.put_files(uploads, progress)
    return programs[0].target, programs[1].target


def put_programs(transport: Transport, *programs: Path) -> list[str]:
    """Copy programs of ours to the device; where they are."""
    uploads = [_program(transport, path) for path in programs]
    transport.put_files(uploads)
    return [file.target for file in uploads]


def _program(transport: Transport, path: Path) -> Upload:
    digest = file_digest(path)
    return Upload(path, f"{transport.workdir}/programs/{path.stem}-{digest[:16]}.py", digest)


def _request(
    transport: Transport, job: Job, place: Callable[[Path | None], str | None]
) -> dict[str, Any]:
    return {
        "id": job.id,
        "rounds": job.rounds,
        "lock": f"{transport.workdir}/lock",
        "settings": vars(job.settings),
        "entries": [
            {
                "entry": entry.name,
                "model": entry.place or place(entry.model),
                "runtime": entry.runtime,
                "delegate": entry.delegate,
                "threads": entry.threads,
                "golden": place(entry.golden),
                "samples": place(entry.samples),
                "tolerance": entry.tolerance,
                "golden_samples": entry.golden_samples,
            }
            for entry in job.entries
        ],
    }


def check_only(entries: Sequence[Entry], job_id: str, timeout_seconds: float) -> Job:
    """A job that loads each model and compares its answers, but measures nothing."""
    return Job(job_id, 0, Settings(0, 0.0, 0, 0.0, timeout_seconds), tuple(entries))
