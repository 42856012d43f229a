"""Copies models and the agent to a device and runs a job on it."""

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

from edgesparse.devices.agent.event_stream import EventStream, output_specs
from edgesparse.devices.agent.events import (
    Answers,
    Event,
    Failed,
    HostInfo,
    Round,
    describe_error,
)
from edgesparse.devices.agent.job import Entry, Job
from edgesparse.devices.agent.sample_files import read_arrays
from edgesparse.devices.transport.interface import (
    ConnectionLost,
    DeviceError,
    NotWrittenError,
    Progress,
    Transport,
    Upload,
    upload,
)
from edgesparse.devices.transport.processes import MAX_OUTPUT, Channel
from edgesparse.spec.errors import UsageError
from edgesparse.spec.safe.files import file_digest
from edgesparse.spec.safe.temporary_folders import temporary_folder
from edgesparse.spec.safe.text import listed
from edgesparse.tflite.format.signature import Signature, in_order, read_signature

PROGRAMS = Path(__file__).parent.with_name("ondevice")
AGENT = PROGRAMS / "agent.py"
DETACHED = PROGRAMS / "detached.py"
POLL_SECONDS = 0.5
STOP_SECONDS = 10.0
BREAKS_WITHOUT_PROGRESS = 3
"""Reconnects without a new event before the job is given up; new events reset the count."""
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")


class Stopped(DeviceError):
    """The job was stopped from this machine."""


def host_info(transport: Transport) -> HostInfo:
    """Return what the device is and which runtimes its Python has.

    Raises:
        DeviceError: its Python cannot run the agent.
    """
    (agent,) = put_programs(transport, AGENT)
    done = transport.run([transport.python, agent, "info"])
    try:
        return HostInfo.model_validate_json(done.stdout.strip().splitlines()[-1])
    except IndexError:
        problem = done.last_line
    except ValidationError as error:
        is_json = error.errors(include_url=False)[0]["type"] != "json_invalid"
        problem = f"invalid data: {describe_error(error)}" if is_json else done.last_line
    raise DeviceError(
        f"device {transport.name}: {transport.python} cannot run the agent: {problem}"
    )


def round_medians(events: Sequence[Event]) -> dict[str, list[float]]:
    """Return the median latency of each round, in ns, by entry."""
    medians: dict[str, list[float]] = {}
    for event in events:
        if isinstance(event, Round):
            medians.setdefault(event.entry, []).append(statistics.median(event.latency_ns))
    return medians


def collect_outputs(entry: Entry, events: Iterable[Event]) -> dict[str, NDArray[Any]] | None:
    """Join the parts of an entry's outputs for its samples.

    Returns:
        By name, float32 [n, ...], or int16 without the last axis where reduced; None where the
        events have no outputs of the entry, or not all of them.
    """
    specs = output_specs(entry)
    if not specs or entry.golden is None:
        return None
    answers = [e for e in events if isinstance(e, Answers) and e.entry == entry.name]
    outputs = {}
    names = read_arrays(entry.golden, "y")
    for number, (name, spec) in enumerate(zip(names, specs, strict=True)):
        parts = sorted((e for e in answers if e.output == number), key=lambda event: event.part)
        try:
            content = b"".join(base64.b64decode(part.data, validate=True) for part in parts)
        except ValueError:
            return None
        if not parts or len(content) != spec.size_bytes:
            return None
        outputs[name] = np.frombuffer(content, spec.dtype).reshape(spec.shape)
    return outputs


def run_job(
    transport: Transport,
    job: Job,
    on_event: Callable[[Event], None] = lambda _: None,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> list[Event]:
    """Run a job on a device.

    After a lost connection the job continues: the device keeps a journal, so that finished rounds
    are not repeated. Setting `stop`, or an exception in `on_event`, ends the work on the device.

    Args:
        on_event: called with each event as it arrives.
        progress: called while files are copied.

    Returns:
        The job's events, in their order.

    Raises:
        DeviceError: the agent does not finish, or the device cannot be reached any more.
        ProtocolError: the agent sends invalid data.
        Stopped: `stop` was set.
    """
    stream = EventStream(transport.name, transport.clock_slowdown, job, on_event)
    # Named after the job: a reconnect with the same id finds its journal and its process.
    folder = f"{transport.workdir}/jobs/{job.id}"
    if stop is not None:
        transport.stop = stop
    try:
        job = _put_job(transport, job, folder, stream, progress)
        _follow(transport, job, folder, stream, stop)
    except ConnectionLost:
        raise  # The next run cleans up on the device.
    except BaseException:
        with suppress(DeviceError):
            transport.remove_folder(folder)
        raise
    transport.remove_folder(folder)
    return stream.events


def _follow(
    transport: Transport, job: Job, folder: str, stream: EventStream, stop: threading.Event | None
) -> None:
    """Receive the job's events until its agent ends, over as many connections as that takes."""
    agent, detached = (_program(transport, path).target for path in (AGENT, DETACHED))
    lease = f"{transport.lease_seconds:g}"
    argv = [transport.python, detached, "attach", folder, agent, lease]
    breaks = 0
    while not stream.ended:
        before = len(stream.events)
        problem = ""
        stream.start_connection()
        try:
            with transport.open(argv) as channel:
                _receive(transport, channel, stream, stop)
        except ConnectionLost as error:
            problem = str(error)
        if stream.ended:
            break
        # A new event means that the connection works at times.
        breaks = 1 if len(stream.events) > before else breaks + 1
        if breaks > BREAKS_WITHOUT_PROGRESS:
            hint = f": {stream.last_output}" if stream.last_output else ""
            raise DeviceError(
                problem or f"device {transport.name}: the agent ended before its job was done{hint}"
            )
        if problem:
            transport.reconnect()


def _receive(
    transport: Transport, channel: Channel, stream: EventStream, stop: threading.Event | None
) -> None:
    """Receive events until the agent ends; stop it where this host gives up."""
    try:
        while not stream.ended:
            if stop is not None and stop.is_set():
                raise Stopped(f"device {transport.name}: stopped")
            try:
                line = channel.read_line(POLL_SECONDS)
            except EOFError:
                return
            if line is not None:
                stream.feed(line)
            stream.check_deadline()
    except BaseException:
        # The agent survives a lost connection by design: closing this one does not end it.
        channel.send("stop\n")
        _drain(channel)
        raise


def _drain(channel: Channel) -> None:
    """Wait until the agent has ended, within limits of time and output."""
    deadline = time.monotonic() + STOP_SECONDS
    received = 0
    try:
        while time.monotonic() < deadline and received < MAX_OUTPUT:
            received += len(channel.read_line(POLL_SECONDS) or "")
    except EOFError:
        pass


def _put_job(
    transport: Transport, job: Job, folder: str, stream: EventStream, progress: Progress | None
) -> Job:
    """Copy the job's files. Entries whose files cannot be written on the device fail; returns the
    job without them. Raises DeviceError where none is left."""
    # Entries share samples, and models over runtimes: each file is read once.
    paths = dict.fromkeys(file for entry in job.entries for file in entry.files)
    files = {file: _upload(transport, file) for file in paths}
    # The request first: a clean-up by another host spares the files that are named in it.
    programs = [_program(transport, path) for path in (AGENT, DETACHED)]
    _put_request(transport, job, folder, files, programs)
    refused: dict[str, str] = {}
    transport.put_files(list(files.values()), progress, refused)
    if not refused:
        return job
    writable = []
    for entry in job.entries:
        reasons = [refused.get(files[file].target) for file in entry.files]
        reason = next((reason for reason in reasons if reason is not None), None)
        if reason is None:
            writable.append(entry)
        else:
            stream.add(Failed(event="failed", entry=entry.name, round=None, error=reason))
    if not writable:
        raise DeviceError(listed(list(refused.values()), 2, "; "))
    job = replace(job, entries=tuple(writable))
    _put_request(transport, job, folder, files, [])
    return job


def refused_by(transport: Transport, file: Path) -> str | None:
    """Copy a job's file ahead of the job; return why the device cannot store it, None if it can."""
    try:
        transport.put_files([_upload(transport, file)])
    except NotWrittenError as error:
        return str(error)
    return None


def _upload(transport: Transport, file: Path) -> Upload:
    """Name a file by its content: the same model in two jobs or projects is sent once."""
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
    """Copy programs to the device; return their paths there."""
    uploads = [_program(transport, path) for path in programs]
    transport.put_files(uploads)
    return [file.target for file in uploads]


def _program(transport: Transport, path: Path) -> Upload:
    digest = file_digest(path)
    return Upload(path, f"{transport.workdir}/programs/{path.stem}-{digest[:16]}.py", digest)


def _request(transport: Transport, job: Job, files: Mapping[Path, Upload]) -> dict[str, Any]:
    """Return the job as the agent reads it; see ondevice/agent.py."""

    def remote_path(file: Path | None) -> str | None:
        return None if file is None else files[file].target

    # On this machine and once per file: reading takes a Pi longer than loading does.
    models = {file: _signature(file) for file in dict.fromkeys(e.model for e in job.entries)}
    return {
        "id": job.id,
        "rounds": job.rounds,
        "lock": f"{transport.workdir}/lock",
        "settings": vars(job.settings),
        "entries": [
            {
                "entry": entry.name,
                "model": entry.remote_path or remote_path(entry.model),
                "runtime": entry.runtime,
                "delegate": _delegate(entry, remote_path(entry.library)),
                "threads": entry.threads,
                "golden": remote_path(entry.golden),
                "samples": remote_path(entry.samples),
                "tolerance": entry.tolerance,
                "golden_samples": entry.golden_samples,
                "reduced": list(entry.reduced),
                "shapes": _shapes(entry, models[entry.model]),
                **_tensors(entry, models[entry.model]),
            }
            for entry in job.entries
        ],
    }


def _shapes(entry: Entry, signature: Signature | None) -> list[list[Any]]:
    """Return [tensor, shape] of inputs with dynamic dimensions: the entry's, else the samples'."""
    if entry.shapes or entry.golden is None or signature is None:
        return [[index, list(shape)] for index, shape in entry.shapes]
    if not any(spec.is_dynamic for spec in signature.inputs):
        return []
    x = read_arrays(entry.golden, "x")
    return [
        [spec.index, [1, *values.shape[1:]]]
        for spec, values in zip(in_order(signature.inputs, list(x)), x.values(), strict=True)
    ]


def _signature(file: Path) -> Signature | None:
    """Read a model's signature; None for an invalid model, which the runtime will report."""
    try:
        return read_signature(file.read_bytes(), file.name)
    except UsageError:
        return None


def _delegate(entry: Entry, library: str | None) -> str | Mapping[str, Any]:
    """Return what the agent loads; `library` is the path there of one that was copied."""
    if isinstance(entry.delegate, str) or library is None:
        return entry.delegate
    return {**entry.delegate, "library": library}


def _tensors(entry: Entry, signature: Signature | None) -> dict[str, Any]:
    """Return the tensors of samples and answers in their order, and whether there is a state."""
    if signature is None:
        return {"stateful": False}
    if entry.golden is None:
        return {"stateful": signature.stateful}
    sides = {"inputs": (signature.inputs, "x"), "outputs": (signature.outputs, "y")}
    return {
        "stateful": signature.stateful,
        **{
            side: [spec.index for spec in in_order(specs, list(read_arrays(entry.golden, kind)))]
            for side, (specs, kind) in sides.items()
        },
    }
