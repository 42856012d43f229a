"""Puts models and the agent on a device and carries out a job there."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgesparse.devices.events import End, Event, HostInfo, Start, Waiting, parse_event
from edgesparse.devices.transport import DeviceError, Transport, file_digest

AGENT = Path(__file__).with_name("agent.py")


@dataclass(frozen=True)
class Entry:
    """One model on one runtime with one number of threads.

    `samples` is an .npz with x [n, ...] and y [n]; `golden` one with golden_x and golden_y.
    """

    name: str
    model: Path
    runtime: str
    delegate: str
    threads: int
    golden: Path | None = None
    samples: Path | None = None
    tolerance: float = 0.0


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
    """What the device is and which runtimes it has."""
    done = transport.run([transport.python, _put_agent(transport), "info"])
    try:
        return HostInfo.model_validate_json(done.stdout)
    except ValidationError:
        reason = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise DeviceError(
            f"device {transport.name}: {transport.python} cannot run the agent: {reason[:200]}"
        ) from None


def run_job(
    transport: Transport, job: Job, on_event: Callable[[Event], None] = lambda _: None
) -> list[Event]:
    """Carry out the job; returns its events. Raises DeviceError when the agent does not finish."""
    folder = f"{transport.workdir}/jobs/{job.id}"
    agent = _put_agent(transport)
    _put_text(transport, json.dumps(_request(transport, job)), f"{folder}/job.json")
    names = {entry.name for entry in job.entries}
    events: list[Event] = []
    junk = ""
    argv = [transport.python, agent, "run", f"{folder}/job.json", f"{folder}/journal.jsonl"]
    with transport.stream(argv) as lines:
        for line in lines:
            event = parse_event(line)
            if event is None or not _expected(event, job, names):
                junk = line.strip()[:200] or junk
                continue
            events.append(event)
            on_event(event)
            if isinstance(event, End):
                break
    if not events or not isinstance(events[-1], End):
        hint = f": {junk}" if junk else ""
        raise DeviceError(f"device {transport.name}: the agent ended before its job was done{hint}")
    transport.remove_folder(folder)
    return events


def _expected(event: Event, job: Job, names: set[str]) -> bool:
    if isinstance(event, Start):
        return event.job == job.id
    return isinstance(event, End | Waiting) or event.entry in names


def _request(transport: Transport, job: Job) -> dict[str, Any]:
    places: dict[Path, str] = {}

    def place(file: Path | None) -> str | None:
        if file is None:
            return None
        if file not in places:
            digest = file_digest(file)
            places[file] = f"{transport.workdir}/files/{digest}{file.suffix}"
            transport.put_file(file, places[file], digest)
        return places[file]

    return {
        "id": job.id,
        "rounds": job.rounds,
        "lock": f"{transport.workdir}/lock",
        "settings": vars(job.settings),
        "entries": [
            {
                "entry": entry.name,
                "model": place(entry.model),
                "runtime": entry.runtime,
                "delegate": entry.delegate,
                "threads": entry.threads,
                "golden": place(entry.golden),
                "samples": place(entry.samples),
                "tolerance": entry.tolerance,
            }
            for entry in job.entries
        ],
    }


def _put_agent(transport: Transport) -> str:
    digest = file_digest(AGENT)
    place = f"{transport.workdir}/agent-{digest[:16]}.py"
    transport.put_file(AGENT, place, digest)
    return place


def _put_text(transport: Transport, text: str, place: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "text")
        file.write_text(text)
        transport.put_file(file, place, hashlib.sha256(text.encode()).hexdigest())


def check_only(entries: Sequence[Entry], job_id: str, timeout_seconds: float) -> Job:
    """A job that loads each model and compares its answers, but measures nothing."""
    return Job(job_id, 0, Settings(0, 0.0, 0, 0.0, timeout_seconds), tuple(entries))
