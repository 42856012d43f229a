"""What is done to devices beside runs: list, check, set up, probe, and go back to a release."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgesparse.bench.rows import RuntimeInfo
from edgesparse.devices.setup import install
from edgesparse.devices.setup.checkup import Finding, checkup
from edgesparse.devices.setup.connection import connected
from edgesparse.devices.setup.provision import Provisioned, provision
from edgesparse.devices.transport.interface import Progress, Transport
from edgesparse.graph import progress as told
from edgesparse.graph.workspace import Workspace
from edgesparse.runs.fleet import probes
from edgesparse.runs.fleet.at_once import set_up_label
from edgesparse.runs.fleet.targets import open_target
from edgesparse.spec.device import Device, Group
from edgesparse.spec.errors import SpecError, UsageError
from edgesparse.spec.reading.load import (
    DEVICES,
    files_of_devices,
    find_device,
    load_device_or_group,
)

Named = str | Path | Device


@dataclass(frozen=True)
class DeviceFile:
    """A file in devices/; `connect` is "invalid" where it is, and `description` then says why."""

    name: str
    connect: str
    description: str


def device_files(project: str | Path = ".") -> list[DeviceFile]:
    """The project's device files, without connecting to anything."""
    found = []
    for path in files_of_devices(Path(project, DEVICES)):
        try:
            spec = load_device_or_group(path).spec
        except (SpecError, UsageError) as error:
            found.append(DeviceFile(path.stem, "invalid", str(error).splitlines()[0]))
            continue
        found.append(DeviceFile(spec.name, _way(spec), spec.description))
    return found


def _way(spec: Device | Group) -> str:
    if isinstance(spec, Group):
        return f"group of {len(spec.devices)}"
    way = spec.connect
    if way.ssh is not None:
        return f"ssh {way.ssh.host}"
    return f"emulator {way.emulator.cpu}" if way.emulator is not None else "local"


def check(
    device: Named, project: str | Path = ".", listener: told.Listener = told.nobody
) -> list[Finding]:
    """What a device is, what it lacks, and what to type."""
    with _connected(device, project, listener) as (found, transport, _):
        return checkup(transport, found)


@dataclass(frozen=True)
class SetUp:
    """A device that has its runtimes, and where: in `venv`, unless it uses those of its own
    Python."""

    device: Device
    done: Provisioned
    venv: str | None


def set_up(
    device: Named, project: str | Path = ".", listener: told.Listener = told.nobody
) -> SetUp:
    """Install the runtimes that a device lacks."""
    with _connected(device, project, listener) as (found, transport, progress):
        done = provision(transport, found, progress)
        return SetUp(found, done, f"{transport.workdir}/venv" if found.builds_venv else None)


@dataclass(frozen=True)
class Probed:
    """What a probe found, and which of it is not as the table of compatibility says."""

    runtimes: tuple[RuntimeInfo, ...]
    found: probes.Found
    surprises: int


def probe(
    device: Named, project: str | Path = ".", listener: told.Listener = told.nobody
) -> Probed:
    """Try on a device which sparse storage its runtimes refuse, run and exploit, and keep it."""
    named = find_device(device, Path(project))
    with (
        told.waiting(listener, f"probe {named.name}") as progress,
        closing(open_target(named, progress)) as target,
    ):
        found = probes.probe(target, Workspace(Path(project)), progress)
    return Probed(target.runtimes, found, len(probes.surprises(target, found.trials)))


def releases(
    device: Named, pipeline: str, project: str | Path = ".", listener: told.Listener = told.nobody
) -> install.State:
    """A pipeline's releases on a device."""
    return _state(device, pipeline, project, listener, install.released)


def rollback(
    device: Named, pipeline: str, project: str | Path = ".", listener: told.Listener = told.nobody
) -> install.State:
    """Make a pipeline's earlier release on a device current again; what there is then."""
    return _state(device, pipeline, project, listener, install.rollback)


def _state(
    device: Named,
    pipeline: str,
    project: str | Path,
    listener: told.Listener,
    act: Callable[[Transport, str], install.State],
) -> install.State:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", pipeline):
        raise UsageError(f"{pipeline!r} is no pipeline's name; give the name inside its file")
    with _connected(device, project, listener) as (_, transport, _):
        return act(transport, pipeline)


@contextmanager
def _connected(
    device: Named, project: str | Path, listener: told.Listener
) -> Iterator[tuple[Device, Transport, Progress]]:
    """A device and the way to it; progress is shown once there is something to wait for."""
    found = find_device(device, Path(project))
    with (
        told.waiting(listener, set_up_label(found)) as progress,
        connected(found, progress) as transport,
    ):
        yield found, transport, progress
