"""`edgesparse emulator ...`: emulated Raspberry Pis, for use without a board."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgesparse.cli.options import JSON, NAME, emit

if TYPE_CHECKING:
    from edgesparse.spec.device import Device, Emulator


@click.group()
def emulator() -> None:
    """Emulated Raspberry Pis, for use without a board."""


def _emulated(name: str) -> tuple[Device, Emulator]:
    import edgesparse
    from edgesparse.spec.errors import UsageError

    device = edgesparse.Project().device(name)
    if device.connect.emulator is None:
        raise UsageError(f"device {name} is not emulated: its file has no connect.emulator")
    return device, device.connect.emulator


@emulator.command()
@NAME
@JSON
def build(name: str, as_json: bool) -> None:
    """Build the disk image of an emulated device, unless it exists."""
    from edgesparse.cli.console import ProgressDisplay
    from edgesparse.commands.fleet.parallel import set_up_progress
    from edgesparse.devices.setup.connection import build_image

    device, _ = _emulated(name)
    with ProgressDisplay() as listener, set_up_progress(device, listener) as progress:
        folder = build_image(device, progress)
    record = {"image": folder.name, "folder": str(folder)}
    emit(as_json, record, [f"image {folder.name} is ready"])


@emulator.command()
@NAME
@JSON
def up(name: str, as_json: bool) -> None:
    """Boot an emulated device and leave it on; its disk is reset when it is shut down."""
    from edgesparse.cli.console import ProgressDisplay
    from edgesparse.commands.fleet.parallel import set_up_progress
    from edgesparse.devices.emulator import machine as machines
    from edgesparse.devices.setup.connection import build_image

    device, spec = _emulated(name)
    with ProgressDisplay() as listener, set_up_progress(device, listener) as progress:
        built = build_image(device, progress)
        machine = machines.up(device.name, spec, built, lambda _, text: progress(0.9, text))
    login = f"log in with: {machines.login(machine, built)}"
    emit(as_json, vars(machine), [machines.describe(machine), login])


@emulator.command()
@NAME
@JSON
def down(name: str, as_json: bool) -> None:
    """Shut an emulated device down."""
    from edgesparse.devices.emulator import machine as machines

    was_up = machines.down(_emulated(name)[0].name)
    line = f"{name}: {'shut down' if was_up else 'was not running'}"
    emit(as_json, {"name": name, "was_up": was_up}, [line])


@emulator.command()
@JSON
def status(as_json: bool) -> None:
    """List the emulated devices that are running, and the images."""
    from edgesparse.devices.emulator import machine as machines

    running, images = machines.machines(), machines.images()
    record = {
        "machines": [vars(machine) for machine in running],
        "images": [{"name": path.name, "bytes": size} for path, size in images],
    }
    lines = [machines.describe(machine) for machine in running]
    lines = lines or ["no emulated device is running"]
    lines += [f"image {path.name}: {size / 1e6:.0f} MB in {path}" for path, size in images]
    emit(as_json, record, lines)
