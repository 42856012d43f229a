"""Puts models and the agent on a device and carries out a job there."""

from __future__ import annotations

import base64
import json
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgesparse.devices.agent.event_stream import Heard, answer_forms
from edgesparse.devices.agent.events import (
    Answers,
    Event,
    Failed,
    HostInfo,
    Round,
    what_is_wrong,
)
from edgesparse.devices.agent.job import Entry, Job
from edgesparse.devices.agent.samples import read
from edgesparse.devices.transport.interface import (
    ConnectionLost,
    DeviceError,
    Progress,
    Transport,
    Upload,
    upload,
)
from edgesparse.devices.transport.processes import MAX_OUTPUT, Channel
from edgesparse.spec.errors import UsageError
from edgesparse.spec.safe.files import file_digest
from edgesparse.spec.safe.temporary import temporary_folder
from edgesparse.tflite.format.signature import Ends, ends, in_order

PROGRAMS = Path(__file__).parent.with_name("ondevice")
AGENT = PROGRAMS / "agent.py"
DETACHED = PROGRAMS / "detached.py"
POLL_SECONDS = 0.5
STOP_SECONDS = 10.0
# A link that breaks but brings events each time may go on for ever; one that brings none is given
# up.
BREAKS_WITHOUT_PROGRESS = 3
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")


class Stopped(DeviceError):
    """The work was told to stop."""


def host_info(transport: Transport) -> HostInfo:
    """What the device is and which runtimes its Python has."""
    (agent,) = put_programs(transport, AGENT)
    done = transport.run([transport.python, agent, "info"])
    try:
        return HostInfo.model_validate_json(done.stdout.strip().splitlines()[-1])
    except IndexError:
        said = done.said
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]["type"] != "json_invalid"
        said = f"it says what cannot be: {what_is_wrong(error)}" if wrong else done.said
    raise DeviceError(f"device {transport.name}: {transport.python} cannot run the agent: {said}")


def round_medians(events: Sequence[Event]) -> dict[str, list[float]]:
    """The median latency of each round, in ns, by entry."""
    found: dict[str, list[float]] = {}
    for event in events:
        if isinstance(event, Round):
            found.setdefault(event.entry, []).append(statistics.median(event.latency_ns))
    return found


def answers_of(entry: Entry, events: Iterable[Event]) -> dict[str, NDArray[Any]] | None:
    """Outputs float32 [n, ...] by name that an entry gave for its samples, int16 without the last
    axis where they are reduced; None where it gave none, or not all of them."""
    forms = answer_forms(entry)
    if not forms or entry.golden is None:
        return None
    parts = [e for e in events if isinstance(e, Answers) and e.entry == entry.name]
    found = {}
    for number, (name, form) in enumerate(zip(read(entry.golden, "y"), forms, strict=True)):
        own = sorted((e for e in parts if e.output == number), key=lambda event: event.part)
        try:
            content = b"".join(base64.b64decode(part.data, validate=True) for part in own)
        except ValueError:
            return None
        if not own or len(content) != form.size_bytes:
            return None
        found[name] = np.frombuffer(content, form.dtype).reshape(form.shape)
    return found


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
    heard = Heard(transport.name, transport.patience, job, on_event)
    # Named after the job: attaching to the same id again finds its journal and its keeper.
    folder = f"{transport.workdir}/jobs/{job.id}"
    if stop is not None:
        transport.stopping = stop
    try:
        job = _put_job(transport, job, folder, heard, progress)
        if job.entries or not heard.events:
            _follow(transport, job, folder, heard, stop)
    except ConnectionLost:
        raise  # The device is away; the next run tidies up there.
    except BaseException:
        with suppress(DeviceError):
            transport.remove_folder(folder)
        raise
    transport.remove_folder(folder)
    return heard.events


def _follow(
    transport: Transport, job: Job, folder: str, heard: Heard, stop: threading.Event | None
) -> None:
    """Hear the job's agent until it ends, over as many connections as that takes."""
    agent, detached = (_program(transport, path).target for path in (AGENT, DETACHED))
    lease = f"{transport.lease_seconds:g}"
    argv = [transport.python, detached, "attach", folder, agent, lease]
    breaks = 0
    while not heard.ended:
        before = len(heard.events)
        problem = ""
        heard.begin()
        try:
            with transport.open(argv) as channel:
                _listen(transport, channel, heard, stop)
        except ConnectionLost as error:
            problem = str(error)
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


def _listen(
    transport: Transport, channel: Channel, heard: Heard, stop: threading.Event | None
) -> None:
    """Hear the agent until it ends. Leaves with the agent stopped if this host gives up."""
    try:
        while not heard.ended:
            if stop is not None and stop.is_set():
                raise Stopped(f"device {transport.name}: stopped")
            try:
                line = channel.read_line(POLL_SECONDS)
            except EOFError:
                return
            if line is not None:
                heard.hear(line)
            heard.require_time()
    except BaseException:
        # The agent lives on without us by design, so that it must be told.
        channel.send("stop\n")
        _drain(channel)
        raise


def _drain(channel: Channel) -> None:
    """Wait until the other side has ended what it was told to end."""
    deadline = time.monotonic() + STOP_SECONDS
    said = 0
    try:
        # One that only prints on does not stop.
        while time.monotonic() < deadline and said < MAX_OUTPUT:
            said += len(channel.read_line(POLL_SECONDS) or "")
    except EOFError:
        pass


def _put_job(
    transport: Transport, job: Job, folder: str, heard: Heard, progress: Progress | None
) -> Job:
    """Copy everything that the job needs; the job without the entries whose files the device's disk
    does not take, which have failed."""
    # Entries share samples, and models over runtimes: each file is read once.
    named = dict.fromkeys(file for entry in job.entries for file in entry.files)
    files = {file: _content(transport, file) for file in named}
    # The request first: whoever tidies up there sees in it what this job needs.
    programs = [_program(transport, path) for path in (AGENT, DETACHED)]
    _put_request(transport, job, folder, files, programs)
    refused: dict[str, str] = {}
    transport.put_files(list(files.values()), progress, refused)
    if not refused:
        return job
    fitting = []
    for entry in job.entries:
        reasons = [refused.get(files[file].target) for file in entry.files]
        reason = next((reason for reason in reasons if reason is not None), None)
        if reason is None:
            fitting.append(entry)
        else:
            heard.take(Failed(event="failed", entry=entry.name, round=None, error=reason))
    job = replace(job, entries=tuple(fitting))
    _put_request(transport, job, folder, files, [])
    return job


def _content(transport: Transport, file: Path) -> Upload:
    """By content: the same model in two jobs, or of two projects, is sent once."""
    digest = file_digest(file)
    suffix = file.suffix if _SUFFIX.fullmatch(file.suffix) else ""
    return Upload(file, f"{transport.workdir}/files/{digest}{suffix}", digest)


def _put_request(
    transport: Transport,
    job: Job,
    folder: str,
    files: Mapping[Path, Upload],
    programs: Sequence[Upload],
) -> None:
    with temporary_folder() as temporary:
        request = temporary / "job.json"
        request.write_text(json.dumps(_request(transport, job, files)))
        transport.put_files([upload(request, f"{folder}/job.json"), *programs])


def put_programs(transport: Transport, *programs: Path) -> list[str]:
    """Copy programs of ours to the device; where they are."""
    uploads = [_program(transport, path) for path in programs]
    transport.put_files(uploads)
    return [file.target for file in uploads]


def _program(transport: Transport, path: Path) -> Upload:
    digest = file_digest(path)
    return Upload(path, f"{transport.workdir}/programs/{path.stem}-{digest[:16]}.py", digest)


def _request(transport: Transport, job: Job, files: Mapping[Path, Upload]) -> dict[str, Any]:
    def place(file: Path | None) -> str | None:
        return None if file is None else files[file].target

    # Read here, once for each file: names, and whether there is a state to be reset, which costs
    # time on the device where there is none.
    models = {file: _ends(file) for file in dict.fromkeys(entry.model for entry in job.entries)}
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
                "reduced": list(entry.reduced),
                "shapes": _shapes(entry, models[entry.model]),
                **_places(entry, models[entry.model]),
            }
            for entry in job.entries
        ],
    }


def _shapes(entry: Entry, known: Ends | None) -> list[list[Any]]:
    """Of inputs that the file leaves open: as they are asked for, else those of the samples."""
    if entry.shapes or entry.golden is None or known is None:
        return [[index, list(shape)] for index, shape in entry.shapes]
    if not any(end.is_open for end in known.inputs):
        return []
    given = read(entry.golden, "x")
    return [
        [end.index, [1, *values.shape[1:]]]
        for end, values in zip(in_order(known.inputs, list(given)), given.values(), strict=True)
    ]


def _ends(file: Path) -> Ends | None:
    """None for what is no model: the runtime will say so."""
    try:
        return ends(file.read_bytes(), file.name)
    except UsageError:
        return None


def _places(entry: Entry, found: Ends | None) -> dict[str, Any]:
    """Which tensors the samples and answers belong to, in their order."""
    if found is None:
        return {"stateful": False}
    if entry.golden is None:
        return {"stateful": found.stateful}
    return {
        "stateful": found.stateful,
        "inputs": [end.index for end in in_order(found.inputs, list(read(entry.golden, "x")))],
        "outputs": [end.index for end in in_order(found.outputs, list(read(entry.golden, "y")))],
    }
