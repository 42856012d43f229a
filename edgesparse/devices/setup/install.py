"""Releases on a device: a model that passed its checks there, current in one step."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgesparse import __version__
from edgesparse.data import raw
from edgesparse.devices.agent.events import Check, Failed
from edgesparse.devices.agent.job import Entry, check_only
from edgesparse.devices.agent.run_job import PROGRAMS, put_programs, run_job
from edgesparse.devices.agent.samples import read_arrays
from edgesparse.devices.setup.provision import MODULES
from edgesparse.devices.transport.interface import ConnectionLost, DeviceError, Transport, Upload
from edgesparse.spec.safe.files import file_digest
from edgesparse.spec.safe.temporary import temporary_folder
from edgesparse.spec.safe.text import outside_json
from edgesparse.tflite.format.signature import in_order, read_signature

RELEASES = PROGRAMS / "releases.py"
PREDICT, RAW = PROGRAMS / "predict.py", Path(raw.__file__)


@dataclass(frozen=True)
class Release:
    """What to install: a checked candidate's files and how they are to be run.

    `entry` is the candidate as it was measured, with its golden outputs; `about` goes into the
    manifest.
    """

    pipeline: str
    entry: Entry
    labels: Path
    transform: Path
    about: Mapping[str, Any]
    min_agreement: float

    @property
    def files(self) -> dict[str, Path]:
        assert self.entry.golden is not None
        return {
            "model.tflite": self.entry.model,
            "labels.json": self.labels,
            "golden.npz": self.entry.golden,
            "transform.json": self.transform,
            "predict.py": PREDICT,
            "raw.py": RAW,
        }


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""Of a release's manifest, as it names the release."""


class State(BaseModel):
    """A pipeline's good releases on a device, by digest, oldest first; the current one is last."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    current: Digest | None
    previous: Digest | None
    releases: list[Digest] = Field(max_length=10_000)


@dataclass(frozen=True)
class Installed:
    """A release that is current on its device."""

    digest: str
    place: str
    state: State


def install(
    transport: Transport,
    release: Release,
    keep: int,
    job_id: str,
    stop: threading.Event | None = None,
) -> Installed:
    """Install a release, check its answers where it lies, and only then make it current.

    Raises DeviceError; what was current before is current still.
    """
    root = f"{transport.workdir}/releases/{release.pipeline}"
    digests = {name: file_digest(path) for name, path in release.files.items()}
    manifest = json.dumps(_manifest(release, digests), indent=1, sort_keys=True) + "\n"
    # The manifest names every file's digest, so that its own digest is the release's identity.
    digest = hashlib.sha256(manifest.encode()).hexdigest()[:16]
    with temporary_folder() as temporary:
        named = {**release.files, "manifest.json": Path(temporary, "manifest.json")}
        named["manifest.json"].write_text(manifest)
        digests["manifest.json"] = hashlib.sha256(manifest.encode()).hexdigest()
        places = {
            name: f"{transport.workdir}/files/{digests[name]}{path.suffix}"
            for name, path in named.items()
        }
        request = Path(temporary, "request.json")
        files = {name: [places[name], digests[name]] for name in named}
        request.write_text(json.dumps({"root": root, "digest": digest, "files": files}))
        asked = f"{transport.workdir}/jobs/{job_id}.json"
        uploads = [Upload(path, places[name], digests[name]) for name, path in named.items()]
        # The request first: whoever tidies up there sees in it what is needed.
        transport.put_files([Upload(request, asked, file_digest(request))])
        transport.put_files(uploads)
    # Until it is current: as long as its request is there, no other host takes it for a leftover.
    with _removed_afterwards(transport, asked):
        _releases(transport, "install", asked)
        # From where it lies: a disk can lose what was verified elsewhere.
        _check(transport, release, f"{root}/{digest}/model.tflite", job_id, stop)
        state = _releases(transport, "activate", root, digest, str(keep))
    return Installed(digest, f"{root}/current", state)


@contextmanager
def _removed_afterwards(transport: Transport, path: str) -> Iterator[None]:
    lost = False
    try:
        yield
    except ConnectionLost:
        lost = True  # The device is away; the next run tidies up there.
        raise
    finally:
        if not lost:
            with suppress(DeviceError):
                transport.remove_folder(path)


def rollback(transport: Transport, pipeline: str) -> State:
    """Make the last good release current: the last one that was current and was not rolled back
    from. Raises DeviceError where there is none."""
    now = released(transport, pipeline).current
    if now is None:
        raise DeviceError(f"device {transport.name}: no release of {pipeline} is current there")
    return _releases(transport, "rollback", f"{transport.workdir}/releases/{pipeline}", now)


def released(transport: Transport, pipeline: str) -> State:
    """A pipeline's releases. Raises DeviceError when it has none."""
    return _releases(transport, "list", f"{transport.workdir}/releases/{pipeline}")


def _manifest(release: Release, digests: Mapping[str, str]) -> dict[str, Any]:
    own = about_model(release.entry)
    return {
        **release.about,
        "pipeline": release.pipeline,
        **own,
        "runtime": {**release.about["runtime"], **own["runtime"]},
        "edgesparse": __version__,
        "files": dict(digests),
    }


def about_model(entry: Entry) -> dict[str, Any]:
    """What predict.py has to know to run a model."""
    return {
        "delegate": entry.delegate,
        "threads": entry.threads,
        **_named_ends(entry),
        "runtime": {"name": entry.runtime, "module": MODULES[entry.runtime]},
    }


def _named_ends(entry: Entry) -> dict[str, Any]:
    """The model's inputs and outputs by name, as [name, tensor], in the order of its samples."""
    assert entry.golden is not None
    signature = read_signature(entry.model.read_bytes(), entry.model.name)
    sides = (("inputs", "x", signature.inputs), ("outputs", "y", signature.outputs))
    return {
        side: [[name, spec.index] for name, spec in zip(names, in_order(specs, names), strict=True)]
        for side, kind, specs in sides
        if (names := list(read_arrays(entry.golden, kind)))
    }


def _check(
    transport: Transport,
    release: Release,
    path: str,
    job_id: str,
    stop: threading.Event | None,
) -> None:
    """The golden check of the file that was installed."""
    entry = release.entry
    again = Entry(
        "release",
        entry.model,
        entry.runtime,
        entry.delegate,
        entry.threads,
        golden=entry.golden,
        tolerance=entry.tolerance,
        golden_samples=entry.golden_samples,
        remote_path=path,
    )
    job = check_only([again], f"{job_id}-release", 600.0)
    agreement = None
    for event in run_job(transport, job, stop=stop):
        if isinstance(event, Failed):
            raise DeviceError(
                f"device {transport.name}: the release does not run there and was not made "
                f"current: {event.error}"
            )
        if isinstance(event, Check):
            agreement = event.agreement
    if agreement is None:
        raise DeviceError(
            f"device {transport.name}: the release was not checked there and was not made current"
        )
    if agreement < release.min_agreement:
        raise DeviceError(
            f"device {transport.name}: the release answers wrong there and was not made "
            f"current: {agreement:.0%} of its golden outputs agree"
        )


def _releases(transport: Transport, *arguments: str) -> State:
    (program,) = put_programs(transport, RELEASES)
    done = transport.run([transport.python, program, *arguments], timeout_seconds=300)
    said = outside_json((done.stdout.strip().splitlines() or [""])[-1])
    if isinstance(said, dict) and "error" in said:
        raise DeviceError(f"device {transport.name}: {str(said['error'])[:500]}")
    try:
        return State.model_validate(said)
    except ValidationError:
        raise DeviceError(
            f"device {transport.name}: its releases cannot be managed: {done.last_line}"
        ) from None
