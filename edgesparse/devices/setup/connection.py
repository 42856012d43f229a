"""From a device file to its transport."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgesparse.devices.emulator import image
from edgesparse.devices.emulator import machine as emulator
from edgesparse.devices.emulator.image import copy_sparse
from edgesparse.devices.setup import runtimes, wheels
from edgesparse.devices.setup.tidy import leave
from edgesparse.devices.transport.interface import Progress, Transport
from edgesparse.devices.transport.local import LocalTransport
from edgesparse.devices.transport.ssh import SshTransport
from edgesparse.devices.transport.workdir import claim
from edgesparse.spec.code.references import call, find
from edgesparse.spec.device import Device, Emulator

_BASE = ""
"""The setup of an image without runtimes."""
_BASE_SHARE = 0.4
"""Its share of the time that a new image takes."""
_FIRST_BOOT_STEPS = len(image.COMPILED) + 3
"""Besides folders of Python's library: its top level, the owners of files, the SSH server."""


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
        return emulator.EmulatedTransport(
            device.name,
            connection.emulator,
            device.workdir,
            image_path,
            show=lambda _, text: progress(0.9, text),
        )
    if connection.plugin is not None:
        target = find("transports", connection.plugin.name, None, Path())
        supplied = {"name": device.name, "workdir": device.workdir}
        transport: Transport = call(target, connection.plugin.args, supplied)
        return transport
    assert connection.local is not None
    return LocalTransport(device.name, connection.local, device.workdir)


def first_use(device: Device) -> str | None:
    """Return what connecting to an emulated device does first, and for how long, where its disk
    image is still to be built."""
    if device.connect.emulator is None or emulator.image_folder(_setup(device)).is_dir():
        return None
    if emulator.image_folder(_BASE).is_dir():
        return (
            f"{device.name}: its disk image is built first, once, from the disk of another device: "
            "it is copied, booted, and its runtimes are installed"
        )
    return (
        f"{device.name}: its disk image is built first, once: about 3 minutes on two idle cores, "
        "100 MB to download, 700 MB on the disk; an interrupted build goes on where it was"
    )


def build_image(device: Device, progress: Progress = lambda _, __: None) -> Path:
    """Return the disk image of an emulated device with its runtimes, built where it is missing.

    A new image is booted once and provisioned like any other device. It starts as a copy of the
    image without runtimes, which other devices share and an interrupted build need not repeat.
    """
    setup = _setup(device)
    image_path = emulator.image_folder(setup)
    if not image_path.is_dir():
        progress(0.0, "disk image")  # Another process may be building it.
    with emulator.building(setup) as folder:
        if folder is not None:
            base = emulator.image_folder(_BASE)
            share = 0.0 if base.is_dir() else _BASE_SHARE
            with emulator.building(_BASE) as new:
                if new is not None:
                    downloads = emulator.downloads_folder(_BASE)
                    image.build(new, downloads, _part(progress, 0, share, "disk: "))
            progress(share, "disk: copying")
            copy_sparse(base, folder)
            _provision_image(device, folder, _part(progress, share, 0.9))
    return image_path


def _setup(device: Device) -> str:
    """Return what is installed in a device's image, for its name."""
    runtime_specs = [runtime.model_dump(mode="json") for runtime in device.runtimes]
    recipe = [runtime_specs, device.workdir, wheels.RELEASES, wheels.lock()]
    return json.dumps(recipe, default=vars, sort_keys=True)


def _part(progress: Progress, start: float, end: float, what: str = "") -> Progress:
    """Return the progress of a part, from `start` to `end` of the whole."""
    return lambda share, text: progress(start + share * (end - start), f"{what}{text}")


def _provision_image(device: Device, folder: Path, progress: Progress) -> None:
    spec = Emulator(cpu="cortex-a76", memory_mib=1024, clock="wall")
    boot = _part(progress, 0, 0.6, "first boot: ")
    transport = emulator.EmulatedTransport(
        device.name,
        spec,
        device.workdir,
        folder,
        keep_disk=True,
        show=lambda number, text: boot(min(1.0, number / _FIRST_BOOT_STEPS), text),
    )
    try:
        claim(transport)
        runtimes.provision(transport, device, _part(progress, 0.6, 1, "runtimes: "))
        transport.run(["sync"], timeout_seconds=300)
    finally:
        transport.close()
