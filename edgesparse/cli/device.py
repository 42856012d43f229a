"""`edgesparse device ...` and `edgesparse emulator ...`."""

from __future__ import annotations

import sys

import click

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_NAME = click.argument("name")


@click.group()
def device() -> None:
    """Look at devices, set them up, and manage what is released on them."""


@device.command("list")
@_JSON
def list_devices(as_json: bool) -> None:
    """List the device files in devices/, without connecting."""
    from edgesparse.cli import device_commands

    device_commands.list_devices(as_json)


@device.command()
@_NAME
@_JSON
def check(name: str, as_json: bool) -> None:
    """Say in one screen what a device is, what it lacks and what to type."""
    from edgesparse.cli import device_commands

    sys.exit(device_commands.check(name, as_json))


@device.command()
@_NAME
@_JSON
def setup(name: str, as_json: bool) -> None:
    """Install the runtimes on a device; does nothing where they are there."""
    from edgesparse.cli import device_commands

    device_commands.setup(name, as_json)


@device.command()
@_NAME
@_JSON
def probe(name: str, as_json: bool) -> None:
    """Try on a device which sparse storage its runtimes refuse, run and exploit; minutes."""
    from edgesparse.cli import device_commands

    device_commands.probe(name, as_json)


@device.command()
@_NAME
@click.argument("pipeline")
@_JSON
def releases(name: str, pipeline: str, as_json: bool) -> None:
    """List a pipeline's releases on a device."""
    from edgesparse.cli import device_commands

    device_commands.releases(name, pipeline, as_json)


@device.command()
@_NAME
@click.argument("pipeline")
@_JSON
def rollback(name: str, pipeline: str, as_json: bool) -> None:
    """Make a pipeline's earlier release on a device current again."""
    from edgesparse.cli import device_commands

    device_commands.rollback(name, pipeline, as_json)


@click.group()
def emulator() -> None:
    """Emulated Raspberry Pis, for use without a board."""


@emulator.command()
@_NAME
@_JSON
def build(name: str, as_json: bool) -> None:
    """Build the disk image of an emulated device, unless there is one."""
    from edgesparse.cli import device_commands

    device_commands.emulator_build(name, as_json)


@emulator.command()
@_NAME
@_JSON
def up(name: str, as_json: bool) -> None:
    """Boot an emulated device and leave it on; its disk forgets everything when it goes down."""
    from edgesparse.cli import device_commands

    device_commands.emulator_up(name, as_json)


@emulator.command()
@_NAME
@_JSON
def down(name: str, as_json: bool) -> None:
    """Shut an emulated device down."""
    from edgesparse.cli import device_commands

    device_commands.emulator_down(name, as_json)


@emulator.command()
@_JSON
def status(as_json: bool) -> None:
    """List the emulated devices that are on, and the images."""
    from edgesparse.cli import device_commands

    device_commands.emulator_status(as_json)
