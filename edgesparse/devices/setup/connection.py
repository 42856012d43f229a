"""From a device file to its transport."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgesparse.devices.emulator import image
from edgesparse.devices.emulator import machine as emulator
from edgesparse.devices.setup import runtimes, wheels
from edgesparse.devices.setup.tidy import leave
from edgesparse.devices.transport.interface import Progress, Transport
from edgesparse.devices.transport.local import LocalTransport
from edgesparse.devices.transport.ssh import SshTransport
from edgesparse.devices.transport.workdir import claim
from edgesparse.spec.code.references import call, find
from edgesparse.spec.device import Device, Emulator


def connect(device: Device, progress: Progress = lambda _, __: None) -> Transport:
    """Open the transport of a device file and claim its workdir; an emulated device is booted.

    Raises:
        DeviceError: the device cannot be reached, or its workdir has files of others.
        EmulatorError: the emulated device cannot be built or booted.
    """
    transport = _open_transport(device, progress)
    try:
        claim(transport)
    except BaseException:
        transport.close()
        raise
    return transport


@contextmanager
def connected(device: Device, progress: Progress = lambda _, __: None) -> Iterator[Transport]:
    """Connect for the duration of a block; its files are removed from the device at the end."""
    transport = connect(device, progress)
    try:
        yield transport
    finally:
        leave(transport)


def _open_transport(device: Device, progress: Progress) -> Transport:
    connection = device.connect
    if connection.ssh is not None:
        return SshTransport(device.name, connection.ssh, device.workdir)
    if connection.emulator is not None:
        image_path = build_image(device, progress)
        progress(0.9, "booting")
        return emulator.EmulatedTransport(
            device.name, connection.emulator, device.workdir, image_path
        )
    if connection.plugin is not None:
        target = find("transports", connection.plugin.name, None, Path())
        supplied = {"name": device.name, "workdir": device.workdir}
        transport: Transport = call(target, connection.plugin.args, supplied)
        return transport
    assert connection.local is not None
    return LocalTransport(device.name, connection.local, device.workdir)


def build_image(device: Device, progress: Progress = lambda _, __: None) -> Path:
    """Return the disk image of an emulated device with its runtimes, built where it is missing.

    A new image is booted once and provisioned like any other device.
    """
    runtime_specs = [runtime.model_dump(mode="json") for runtime in device.runtimes]
    recipe = [runtime_specs, device.workdir, wheels.RELEASES, wheels.lock()]
    setup = json.dumps(recipe, default=vars, sort_keys=True)
    with emulator.building(setup) as folder:
        if folder is not None:
            image.build(folder, lambda share, text: progress(share * 0.3, text))
            spec = Emulator(cpu="cortex-a76", memory_mib=1024, clock="wall")
            progress(0.3, "booting the new image to set it up")
            transport = emulator.EmulatedTransport(
                device.name, spec, device.workdir, folder, keep_disk=True
            )
            try:
                claim(transport)
                runtimes.provision(
                    transport, device, lambda share, text: progress(0.3 + share * 0.6, text)
                )
                transport.run(["sync"], timeout_seconds=300)
            finally:
                transport.close()
    return emulator.image_folder(setup)
