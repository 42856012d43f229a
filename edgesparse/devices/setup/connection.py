"""From a device file to its transport."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgesparse.devices.emulator import image
from edgesparse.devices.emulator import machine as emulator
from edgesparse.devices.setup import provision, wheels
from edgesparse.devices.setup.tidy import leave
from edgesparse.devices.transport.interface import Progress, Transport
from edgesparse.devices.transport.local import LocalTransport
from edgesparse.devices.transport.ssh import SshTransport
from edgesparse.devices.transport.workdir import claim
from edgesparse.spec.device import Device, Emulator


def connect(device: Device, progress: Progress = lambda _, __: None) -> Transport:
    """Open the transport that the device file names, to a workdir that is ours; an emulated device
    is booted.

    Raises DeviceError or EmulatorError.
    """
    transport = _reached(device, progress)
    try:
        claim(transport)
    except BaseException:
        transport.close()
        raise
    return transport


@contextmanager
def connected(device: Device, progress: Progress = lambda _, __: None) -> Iterator[Transport]:
    """The same for a block, at whose end nothing of what it brought is left there."""
    transport = connect(device, progress)
    try:
        yield transport
    finally:
        leave(transport)


def _reached(device: Device, progress: Progress) -> Transport:
    way = device.connect
    if way.ssh is not None:
        return SshTransport(device.name, way.ssh, device.workdir)
    if way.emulator is not None:
        built = build_image(device, progress)
        progress(0.9, "booting")
        return emulator.EmulatedTransport(device.name, way.emulator, device.workdir, built)
    assert way.local is not None
    return LocalTransport(device.name, way.local, device.workdir)


def build_image(device: Device, progress: Progress = lambda _, __: None) -> Path:
    """The disk image for an emulated device, with its runtimes on it; built when it is missing.

    It is set up by booting it once and provisioning it like any other device.
    """
    wanted = [runtime.model_dump(mode="json") for runtime in device.runtimes]
    about = [wanted, device.workdir, wheels.RELEASES, wheels.lock()]
    setup = json.dumps(about, default=vars, sort_keys=True)
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
                provision.provision(
                    transport, device, lambda share, text: progress(0.3 + share * 0.6, text)
                )
                transport.run(["sync"], timeout_seconds=300)
            finally:
                transport.close()
    return emulator.image_folder(setup)
