"""What is done to devices beside runs: list, check, set up, probe, and go back to a release."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from edgesparse.commands.fleet import probes
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.devices.setup import install
from edgesparse.devices.setup.checkup import Finding, checkup
from edgesparse.devices.setup.provision import Provisioned, provision
from edgesparse.devices.transport.interface import Transport
from edgesparse.graph import events
from edgesparse.measure.rows import RuntimeInfo
from edgesparse.spec.device import Device, Group
from edgesparse.spec.errors import SpecError, UsageError
from edgesparse.spec.reading.load import (
    DEVICES,
    files_of_devices,
    load_device_or_group,
)


@dataclass(frozen=True)
class DeviceFile:
    """A file in devices/; `connect` is "invalid" where it is, and `description` then says why."""

    name: str
    connect: str
    description: str


def device_files(project: Resources) -> list[DeviceFile]:
    """The project's device files, without connecting to anything."""
    found = []
    for path in files_of_devices(project.folder / DEVICES):
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


def check(project: Resources, name: DeviceName) -> list[Finding]:
    """What a device is, what it lacks, and what to type."""
    device = project.device(name)
    with project.transport(device) as (transport, _):
        return checkup(transport, device)


@dataclass(frozen=True)
class SetUp:
    """A device that has its runtimes, and where: in `venv`, unless it uses those of its own
    Python."""

    device: Device
    done: Provisioned
    venv: str | None


def set_up(project: Resources, name: DeviceName) -> SetUp:
    """Install the runtimes that a device lacks."""
    device = project.device(name)
    with project.transport(device) as (transport, progress):
        done = provision(transport, device, progress)
        return SetUp(device, done, f"{transport.workdir}/venv" if device.builds_venv else None)


@dataclass(frozen=True)
class Probed:
    """What a probe found, and which of it is not as the table of compatibility says."""

    runtimes: tuple[RuntimeInfo, ...]
    found: probes.Found
    surprises: int


def probe(project: Resources, name: DeviceName) -> Probed:
    """Try on a device which sparse storage its runtimes refuse, run and exploit, and keep it."""
    device = project.device(name)
    with (
        project.target(device) as target,
        events.stage_progress(project.listener, f"probe {device.name}") as progress,
    ):
        found = probes.probe(target, project.workspace(), progress)
    return Probed(target.runtimes, found, len(probes.surprises(target, found.trials)))


def releases(project: Resources, name: DeviceName, pipeline: str) -> install.State:
    """A pipeline's releases on a device."""
    return _state(project, name, pipeline, install.released)


def rollback(project: Resources, name: DeviceName, pipeline: str) -> install.State:
    """Make a pipeline's earlier release on a device current again; what there is then."""
    return _state(project, name, pipeline, install.rollback)


def _state(
    project: Resources,
    name: DeviceName,
    pipeline: str,
    act: Callable[[Transport, str], install.State],
) -> install.State:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", pipeline):
        raise UsageError(f"{pipeline!r} is no pipeline's name; give the name inside its file")
    with project.transport(project.device(name)) as (transport, _):
        return act(transport, pipeline)
