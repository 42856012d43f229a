"""Commands on devices: list, check, set up, probe, and roll back a release."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgesparse.commands.fleet import probes
from edgesparse.commands.fleet.resources import DeviceName, Resources
from edgesparse.devices.setup import releases as device_releases
from edgesparse.devices.setup.checkup import Finding, checkup, delegate_finding
from edgesparse.devices.setup.runtimes import Provisioned, provision
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
    """A file in devices/; `connect` is "invalid" for an invalid file, `description` the error."""

    name: str
    connect: str
    description: str


def device_files(project: Resources) -> list[DeviceFile]:
    """List the project's device files, without connecting."""
    files = []
    for path in files_of_devices(project.folder / DEVICES):
        try:
            spec = load_device_or_group(path).spec
        except (SpecError, UsageError) as error:
            files.append(DeviceFile(path.stem, "invalid", str(error).splitlines()[0]))
            continue
        files.append(DeviceFile(spec.name, _connection_text(spec), spec.description))
    return files


def _connection_text(spec: Device | Group) -> str:
    if isinstance(spec, Group):
        return f"group of {len(spec.devices)}"
    connect = spec.connect
    if connect.ssh is not None:
        return f"ssh {connect.ssh.host}"
    if connect.plugin is not None:
        return f"transport {connect.plugin.name}"
    return f"emulator {connect.emulator.cpu}" if connect.emulator is not None else "local"


def check(project: Resources, name: DeviceName) -> list[Finding]:
    """Report on a device: hardware, software, what is missing and the command that installs it."""
    device = project.device(name)
    with project.transport(device) as (transport, _):
        return checkup(transport, device)


@dataclass(frozen=True)
class SetUp:
    """A device with its runtimes, in `venv` unless the device uses those of its Python."""

    device: Device
    done: Provisioned
    venv: str | None


def set_up(project: Resources, name: DeviceName) -> SetUp:
    """Install the runtimes that a device lacks. Raises DeviceError."""
    device = project.device(name)
    with project.transport(device) as (transport, progress):
        done = provision(transport, device, progress)
        return SetUp(device, done, f"{transport.workdir}/venv" if device.builds_venv else None)


@dataclass(frozen=True)
class Probed:
    """Results of a probe, and how many differ from the built-in compatibility table; by runtime,
    whether edgesparse's delegate loads, where the device file may use it."""

    runtimes: tuple[RuntimeInfo, ...]
    result: probes.ProbeResult
    surprises: int
    delegates: Mapping[str, Finding]


def probe(project: Resources, name: DeviceName) -> Probed:
    """Measure which sparse storage a device's runtimes refuse, run and exploit, for later runs."""
    device = project.device(name)
    with (
        project.target(device) as target,
        events.stage_progress(project.listener, f"probe {device.name}") as progress,
    ):
        result = probes.probe(target, project.workspace(), progress)
        delegates = {
            r.name: delegate_finding(target.transport, r.name, r.version, target.host.machine)
            for r in target.runtimes
            if target.device.loads_edgesparse
        }
    surprises = len(probes.mismatches(target, result.trials))
    return Probed(target.runtimes, result, surprises, delegates)


def releases(project: Resources, name: DeviceName, pipeline: str) -> device_releases.State:
    """List a pipeline's releases on a device."""
    return _state(project, name, pipeline, device_releases.released)


def rollback(project: Resources, name: DeviceName, pipeline: str) -> device_releases.State:
    """Make a pipeline's earlier release on a device current again, and list its releases."""
    return _state(project, name, pipeline, device_releases.rollback)


def _state(
    project: Resources,
    name: DeviceName,
    pipeline: str,
    act: Callable[[Transport, str], device_releases.State],
) -> device_releases.State:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", pipeline):
        raise UsageError(f"invalid pipeline name {pipeline!r}; use the name inside its file")
    with project.transport(project.device(name)) as (transport, _):
        return act(transport, pipeline)
