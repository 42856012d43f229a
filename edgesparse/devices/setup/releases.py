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
from edgesparse.delegate.load import TESTED
from edgesparse.devices.agent.events import Check, Failed
from edgesparse.devices.agent.job import Entry, check_only
from edgesparse.devices.agent.run_job import PROGRAMS, put_programs, run_job
from edgesparse.devices.agent.sample_files import read_arrays
from edgesparse.devices.setup.runtimes import MODULES
from edgesparse.devices.transport.interface import ConnectionLost, DeviceError, Transport, Upload
from edgesparse.spec.safe.files import file_digest
from edgesparse.spec.safe.temporary_folders import temporary_folder
from edgesparse.spec.safe.text import outside_json
from edgesparse.tflite.format.signature import in_order, read_signature

RELEASES = PROGRAMS / "releases.py"
MODEL_PROGRAMS = (PROGRAMS / "edgesparse_model.py", PROGRAMS / "predict.py", Path(raw.__file__))
"""What runs a model, beside it: the module, its command and the preprocessing of raw files."""


@dataclass(frozen=True)
class Release:
    """A release to install: the files of a verified candidate and how to run them.

    `entry` is the candidate as it was measured, with its golden outputs; `about` is added to the
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
        library = self.entry.library
        return {
            "model.tflite": self.entry.model,
            **({library.name: library} if library else {}),
            "labels.json": self.labels,
            "golden.npz": self.entry.golden,
            "transform.json": self.transform,
            **{program.name: program for program in MODEL_PROGRAMS},
        }


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""Digest of a release's manifest, which names the release."""


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
    path: str
    """The link to it on the device."""
    state: State


def install(
    transport: Transport,
    release: Release,
    keep: int,
    job_id: str,
    stop: threading.Event | None = None,
) -> Installed:
    """Install a release, check its golden outputs on the device, and only then make it current.

    Args:
        keep: how many good releases stay on the device.

    Raises:
        DeviceError: any step failed; the current release stays current.
    """
    root = f"{transport.workdir}/releases/{release.pipeline}"
    digests = {name: file_digest(path) for name, path in release.files.items()}
    manifest = json.dumps(_manifest(release, digests), indent=1, sort_keys=True) + "\n"
    # The manifest names every file's digest, so that its own digest is the release's identity.
    digest = hashlib.sha256(manifest.encode()).hexdigest()[:16]
    with temporary_folder() as temporary:
        paths = {**release.files, "manifest.json": Path(temporary, "manifest.json")}
        paths["manifest.json"].write_text(manifest)
        digests["manifest.json"] = hashlib.sha256(manifest.encode()).hexdigest()
        remote_paths = {
            name: f"{transport.workdir}/files/{digests[name]}{path.suffix}"
            for name, path in paths.items()
        }
        request = Path(temporary, "request.json")
        files = {name: [remote_paths[name], digests[name]] for name in paths}
        request.write_text(json.dumps({"root": root, "digest": digest, "files": files}))
        request_path = f"{transport.workdir}/jobs/{job_id}.json"
        uploads = [Upload(path, remote_paths[name], digests[name]) for name, path in paths.items()]
        # The request first: a clean-up by another host spares the files that are named in it.
        transport.put_files([Upload(request, request_path, file_digest(request))])
        transport.put_files(uploads)
    # While the request exists, no other host treats the new release as a leftover.
    with _removed_afterwards(transport, request_path):
        _releases(transport, "install", request_path)
        # The installed file itself: copying and the disk can damage it.
        _check(transport, release, f"{root}/{digest}", job_id, stop)
        state = _releases(transport, "activate", root, digest, str(keep))
    return Installed(digest, f"{root}/current", state)


@contextmanager
def _removed_afterwards(transport: Transport, path: str) -> Iterator[None]:
    lost = False
    try:
        yield
    except ConnectionLost:
        lost = True  # The next run cleans up on the device.
        raise
    finally:
        if not lost:
            with suppress(DeviceError):
                transport.remove_folder(path)


def rollback(transport: Transport, pipeline: str) -> State:
    """Make the previous good release current again. Raises DeviceError where there is none."""
    now = released(transport, pipeline).current
    if now is None:
        raise DeviceError(f"device {transport.name}: no release of {pipeline} is current")
    return _releases(transport, "rollback", f"{transport.workdir}/releases/{pipeline}", now)


def released(transport: Transport, pipeline: str) -> State:
    """Return a pipeline's releases. Raises DeviceError where it has none."""
    return _releases(transport, "list", f"{transport.workdir}/releases/{pipeline}")


def _manifest(release: Release, digests: Mapping[str, str]) -> dict[str, Any]:
    model_facts = about_model(release.entry)
    return {
        **release.about,
        "pipeline": release.pipeline,
        **model_facts,
        "runtime": {**release.about["runtime"], **model_facts["runtime"]},
        "edgesparse": __version__,
        "files": dict(digests),
    }


def about_model(entry: Entry) -> dict[str, Any]:
    """Return the manifest's part with which edgesparse_model.py runs a model."""
    return {
        "delegate": loaded_from(entry, ""),
        "threads": entry.threads,
        **({"delegate_tested_with": _tested()} if entry.library else {}),
        **_named_ends(entry),
        "runtime": {"name": entry.runtime, "module": MODULES[entry.runtime]},
    }


def _tested() -> list[str]:
    """Return the runtimes that the delegate's library was compared with, as NAME VERSION."""
    return [f"{name} {version}" for name, versions in TESTED.items() for version in versions]


def loaded_from(entry: Entry, folder: str) -> str | dict[str, Any]:
    """Return an entry's delegate as it is loaded where its library lies in `folder`."""
    if isinstance(entry.delegate, str):
        return entry.delegate
    library = entry.delegate["library"] if entry.library is None else folder + entry.library.name
    # The report is for the notes of a measurement.
    options = {k: v for k, v in entry.delegate.get("options", {}).items() if k != "report"}
    return {"library": library, "options": options}


def _named_ends(entry: Entry) -> dict[str, Any]:
    """Return the model's inputs and outputs as [name, tensor], in the order of its samples, and
    whether it is stateful."""
    assert entry.golden is not None
    signature = read_signature(entry.model.read_bytes(), entry.model.name)
    sides = (("inputs", "x", signature.inputs), ("outputs", "y", signature.outputs))
    named_ends = {
        side: [[name, spec.index] for name, spec in zip(names, in_order(specs, names), strict=True)]
        for side, kind, specs in sides
        if (names := list(read_arrays(entry.golden, kind)))
    }
    return {**named_ends, **({"stateful": True} if signature.stateful else {})}


def _check(
    transport: Transport,
    release: Release,
    folder: str,
    job_id: str,
    stop: threading.Event | None,
) -> None:
    """Compare the golden outputs of the files in a release's folder."""
    entry = release.entry
    installed = Entry(
        "release",
        entry.model,
        entry.runtime,
        loaded_from(entry, f"{folder}/"),
        entry.threads,
        golden=entry.golden,
        tolerance=entry.tolerance,
        golden_samples=entry.golden_samples,
        remote_path=f"{folder}/model.tflite",
    )
    job = check_only([installed], f"{job_id}-release", 600.0)
    agreement = None
    for event in run_job(transport, job, stop=stop):
        if isinstance(event, Failed):
            raise DeviceError(
                f"device {transport.name}: the release does not run and was not made current: "
                f"{event.error}"
            )
        if isinstance(event, Check):
            agreement = event.agreement
    if agreement is None:
        raise DeviceError(
            f"device {transport.name}: the release could not be checked and was not made current"
        )
    if agreement < release.min_agreement:
        raise DeviceError(
            f"device {transport.name}: the release has wrong outputs and was not made current: "
            f"{agreement:.0%} of golden outputs match, {release.min_agreement:.0%} required"
        )


def _releases(transport: Transport, *arguments: str) -> State:
    (program,) = put_programs(transport, RELEASES)
    done = transport.run([transport.python, program, *arguments], timeout_seconds=300)
    reply = outside_json((done.stdout.strip().splitlines() or [""])[-1])
    if isinstance(reply, dict) and "error" in reply:
        raise DeviceError(f"device {transport.name}: {str(reply['error'])[:500]}")
    try:
        return State.model_validate(reply)
    except ValidationError:
        raise DeviceError(
            f"device {transport.name}: cannot manage its releases: {done.last_line}"
        ) from None
