"""Connection to a device, and the inventory of its runtimes."""

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
from edgesparse.devices.setup.runtimes import provision
from edgesparse.devices.setup.tidy import clear, leave
from edgesparse.devices.transport.interface import DeviceError, Progress, Transport
from edgesparse.devices.transport.local import LocalTransport
from edgesparse.devices.transport.workdir import claim
from edgesparse.measure.results import DeviceInfo
from edgesparse.measure.rows import RuntimeInfo
from edgesparse.spec.device import DEFAULT_WORKDIR, Device, Local, Runtime, RuntimeName
from edgesparse.spec.safe.journal import Journal


@dataclass(frozen=True)
class Target:
    """A connected device.

    `runtimes` are the installed ones of those in its file; `missing` are (runtime, why) of the
    others, `notes` name optional ones that were left out.
    """

    device: Device
    transport: Transport
    host: HostInfo
    runtimes: tuple[RuntimeInfo, ...]
    missing: tuple[tuple[RuntimeInfo, str], ...]
    notes: tuple[str, ...]

    @property
    def all_runtimes(self) -> list[tuple[RuntimeInfo, str | None]]:
        """Every runtime of the device file, with the reason where it is missing."""
        return [*((runtime, None) for runtime in self.runtimes), *self.missing]

    def close(self) -> None:
        """Remove temporary files from the device and close the connection."""
        leave(self.transport)

    @property
    def info(self) -> DeviceInfo:
        """The device, as results describe it."""
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
    device: Device,
    progress: Progress = lambda _, __: None,
    killed: Sequence[str] = (),
    journal: Journal | None = None,
) -> Target:
    """Connect to a device, install missing runtimes, and take inventory.

    Args:
        killed: runs whose host was killed; their leftovers on the device are removed.
        journal: keeps the names of files on the device until they are removed.

    Raises:
        DeviceError: the device cannot be used; the connection is closed.
    """
    transport = connect(device, progress)
    transport.journal = None if transport.is_ephemeral else journal
    try:
        target = _inventory(device, transport, progress)
        clear(transport, killed)
        return target
    except BaseException:
        transport.close()
        raise


def _inventory(device: Device, transport: Transport, progress: Progress) -> Target:
    provisioned = provision(transport, device, progress)
    notes: list[str] = []
    if device.emulated and device.clock == "wall":
        notes.append(
            f"{device.name}: times of an emulation are noisy and favour sparse code; "
            "'clock: instructions' is exact"
        )
    if device.tpu is not None:
        edgetpu.require_tpu(device.name, device.tpu, provisioned.platform)
        notes += edgetpu.connection_notes(device.name, device.tpu, provisioned.platform)
    # After provisioning: before it the device may have had no runtime.
    host = host_info(transport)
    installed, missing = [], []
    for runtime in device.runtimes:
        version = host.runtimes.get(runtime.name)
        problem = provisioned.refused.get(runtime.name)
        problem = problem or _runtime_problem(device, runtime, version, host)
        if problem is None:
            assert version is not None
            installed.append(RuntimeInfo(name=runtime.name, version=version))
        elif runtime.optional and version is None:
            notes.append(f"left out on {device.name}: {problem}")
        else:
            info = RuntimeInfo(name=runtime.name, version=version or runtime.version or "none")
            missing.append((info, problem))
    if not installed and not missing:
        raise DeviceError(f"device {device.name} has no runtime: {'; '.join(notes)}")
    return Target(device, transport, host, tuple(installed), tuple(missing), tuple(notes))


def _runtime_problem(
    device: Device, runtime: Runtime, version: str | None, host: HostInfo
) -> str | None:
    if version is None and runtime.name == "tflite-runtime" and _minor(host.python) > 11:
        return f"tflite-runtime has no wheels for device {device.name}'s Python {host.python}"
    if version is None:
        return (
            f"{runtime.name} is not installed on device {device.name} for Python {host.python}; "
            f"run 'pip install {runtime.name}' on the device, or remove it from the device file"
        )
    if runtime.version is not None and runtime.version != version:
        return (
            f"device {device.name} has {runtime.name} {version}, but its file requires "
            f"{runtime.version}"
        )
    return None


def _minor(version: str) -> int:
    """Minor version, such as 11 of "3.11.7"; 0 for invalid text from a device."""
    parts = version.split(".")
    return int(parts[1]) if len(parts) > 1 and re.fullmatch("[0-9]{1,4}", parts[1]) else 0


def this_machine() -> Transport:
    """Transport to the machine edgesparse runs on, where files are verified."""
    transport = LocalTransport("this machine", Local(), DEFAULT_WORKDIR)
    claim(transport)
    clear(transport, ())
    return transport


def installed_runtimes() -> tuple[str, ...]:
    """Runtimes installed in the Python that edgesparse runs in."""
    names = []
    for name in get_args(RuntimeName):
        with suppress(metadata.PackageNotFoundError):
            metadata.version(name)
            names.append(name)
    return tuple(names)
