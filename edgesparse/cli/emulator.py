"""`edgesparse emulator ...`: emulated Raspberry Pis, for use without a board."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgesparse.cli.options import JSON, NAME, print_json, say

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
        raise UsageError(f"device {name} is no emulated one: its file has no connect.emulator")
    return device, device.connect.emulator


@emulator.command()
@NAME
@JSON
def build(name: str, as_json: bool) -> None:
    """Build the disk image of an emulated device, unless there is one."""
    from edgesparse.cli.console import Shown
    from edgesparse.devices.setup.connection import build_image
    from edgesparse.graph.events import stage_progress

    device, _ = _emulated(name)
    with Shown() as listener, stage_progress(listener, f"build the image of {name}") as progress:
        folder = build_image(device, progress)
    if as_json:
        print_json({"image": folder.name, "folder": str(folder)})
    else:
        say(f"image {folder.name} is there")


@emulator.command()
@NAME
@JSON
def up(name: str, as_json: bool) -> None:
    """Boot an emulated device and leave it on; its disk forgets everything when it goes down."""
    from edgesparse.cli.console import Shown
    from edgesparse.devices.emulator import machine as machines
    from edgesparse.devices.setup.connection import build_image
    from edgesparse.graph.events import stage_progress

    device, spec = _emulated(name)
    with Shown() as listener, stage_progress(listener, f"start {name}") as progress:
        built = build_image(device, progress)
        progress(0.9, "booting")
        machine = machines.up(device.name, spec, built)
    if as_json:
        print_json(vars(machine))
        return
    say(machines.describe(machine))
    say(f"log in with: {machines.login(machine, built)}")


@emulator.command()
@NAME
@JSON
def down(name: str, as_json: bool) -> None:
    """Shut an emulated device down."""
    from edgesparse.devices.emulator import machine as machines

    was_up = machines.down(_emulated(name)[0].name)
    if as_json:
        print_json({"name": name, "was_up": was_up})
    else:
        say(f"{name}: {'shut down' if was_up else 'was not up'}")


@emulator.command()
@JSON
def status(as_json: bool) -> None:
    """List the emulated devices that are on, and the images."""
    from edgesparse.devices.emulator import machine as machines

    on, images = machines.machines(), machines.images()
    if as_json:
        about = {
            "machines": [vars(machine) for machine in on],
            "images": [{"name": path.name, "bytes": size} for path, size in images],
        }
        print_json(about)
        return
    for machine in on:
        say(machines.describe(machine))
    if not on:
        say("no emulated device is up")
    for path, size in images:
        say(f"image {path.name}: {size / 1e6:.0f} MB in {path}")
