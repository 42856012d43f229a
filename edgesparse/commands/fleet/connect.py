"""A device that has been asked what it is and which runtimes it has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import get_args

from edgesparse.devices import edgetpu
from edgesparse.devices.agent.events import HostInfo
from edgesparse.devices.agent.run_job import host_info
from edgesparse.devices.setup.connection import connect
from edgesparse.devices.setup.provision import provision
from edgesparse.devices.setup.tidy import clear, leave
from edgesparse.devices.transport.interface import DeviceError, Progress, Transport
from edgesparse.devices.transport.local import LocalTransport
from edgesparse.devices.transport.workdir import claim
from edgesparse.measure.results import DeviceInfo
from edgesparse.measure.rows import RuntimeInfo
from edgesparse.spec.device import DEFAULT_WORKDIR, Device, Local, Runtime, RuntimeName


@dataclass(frozen=True)
class Target:
    """A device that has been asked what it is.

    `runtimes` are those it has of the ones its file lists; `missing` are (runtime, why) of the
    others, `notes` say which optional ones were left out.
    """

    device: Device
    transport: Transport
    host: HostInfo
    runtimes: tuple[RuntimeInfo, ...]
    missing: tuple[tuple[RuntimeInfo, str], ...]
    notes: tuple[str, ...]

    @property
    def all_runtimes(self) -> list[tuple[RuntimeInfo, str | None]]:
        """Every runtime of the device file, with why it is missing if it is."""
        return [*((runtime, None) for runtime in self.runtimes), *self.missing]

    def close(self) -> None:
        """Take away what was brought, and end the connection."""
        leave(self.transport)

    @property
    def info(self) -> DeviceInfo:
        return DeviceInfo(
            name=self.device.name,
            description=self.device.description,
            machine=self.host.machine,
            cpu=self.host.cpu,
            cores=self.host.cores,
            python=self.host.python,
            governor=self.host.governor,
        )


def open_target(
    device: Device, progress: Progress = lambda _, __: None, killed: Sequence[str] = ()
) -> Target:
    """Connect to a device, install its runtimes where it has not, and ask what it has.

    `killed` are runs whose host was killed: what they left there is removed. Raises DeviceError;
    nothing is left open then.
    """
    transport = connect(device, progress)
    try:
        target = _asked(device, transport, progress)
        clear(transport, killed)
        return target
    except BaseException:
        transport.close()
        raise


def _asked(device: Device, transport: Transport, progress: Progress) -> Target:
    provisioned = provision(transport, device, progress)
    notes: list[str] = []
    if device.emulated and device.clock == "wall":
        notes.append(
            f"{device.name}: these are times of an emulation, not of a board: they scatter and "
            "flatter sparse code; 'clock: instructions' is exact"
        )
    if device.tpu is not None:
        edgetpu.require_tpu(device.name, device.tpu, provisioned.platform)
        notes += edgetpu.connection_notes(device.name, device.tpu, provisioned.platform)
    # Only now: before it was provisioned its Python may have had no runtime.
    host = host_info(transport)
    found, missing = [], []
    for runtime in device.runtimes:
        version = host.runtimes.get(runtime.name)
        problem = provisioned.refused.get(runtime.name)
        problem = problem or _runtime_problem(device, runtime, version, host)
        if problem is None:
            assert version is not None
            found.append(RuntimeInfo(name=runtime.name, version=version))
        elif runtime.optional and version is None:
            notes.append(f"left out on {device.name}: {problem}")
        else:
            info = RuntimeInfo(name=runtime.name, version=version or runtime.version or "none")
            missing.append((info, problem))
    if not found and not missing:
        raise DeviceError(f"device {device.name} has no runtime: {'; '.join(notes)}")
    return Target(device, transport, host, tuple(found), tuple(missing), tuple(notes))


def _runtime_problem(
    device: Device, runtime: Runtime, version: str | None, host: HostInfo
) -> str | None:
    if version is None and runtime.name == "tflite-runtime" and _minor(host.python) > 11:
        return f"tflite-runtime has no wheels for device {device.name}'s Python {host.python}"
    if version is None:
        return (
            f"{runtime.name} is not installed on device {device.name} for Python {host.python}; "
            f"install it there (pip install {runtime.name}) or take it out of the device file"
        )
    if runtime.version is not None and runtime.version != version:
        return (
            f"device {device.name} has {runtime.name} {version}, but its file asks for "
            f"{runtime.version}"
        )
    return None


def _minor(version: str) -> int:
    """11 of "3.11.7"; 0 where a device says something else."""
    parts = version.split(".")
    return int(parts[1]) if len(parts) > 1 and re.fullmatch("[0-9]{1,4}", parts[1]) else 0


def this_machine() -> Transport:
    """The machine edgesparse runs on, for what a device is compared with."""
    transport = LocalTransport("this machine", Local(), DEFAULT_WORKDIR)
    claim(transport)
    clear(transport, ())
    return transport


def own_runtimes() -> tuple[str, ...]:
    """The runtimes of the Python edgesparse runs in."""
    found = []
    for name in get_args(RuntimeName):
        with suppress(metadata.PackageNotFoundError):
            metadata.version(name)
            found.append(name)
    return tuple(found)
