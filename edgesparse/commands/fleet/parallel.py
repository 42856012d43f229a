"""Several devices at once: each works alone on itself, and none waits for another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgesparse.commands.fleet.connect import Target, open_target
from edgesparse.devices.setup.tidy import clear, remove_used
from edgesparse.graph import events, open_runs
from edgesparse.spec.device import Device
from edgesparse.spec.errors import EdgesparseError

# Threads mostly wait; more than this many connections at once only trip servers' limits.
MAX_AT_ONCE = 64
Item = TypeVar("Item")


@dataclass(frozen=True)
class Fleet:
    """Devices that can be used, and (device, why) for those that cannot."""

    targets: tuple[Target, ...]
    dead: tuple[tuple[Device, str], ...]


class Connections:
    """Devices that stay connected from command to command."""

    def __init__(self) -> None:
        self._targets: dict[str, Target] = {}

    @contextmanager
    def use(
        self,
        devices: Sequence[Device],
        runs: Path,
        listener: events.Listener,
        stop: threading.Event,
    ) -> Iterator[Fleet]:
        """Connect to all devices at once and set up those that need it; when the block ends,
        nothing is left there of what it brought.

        What runs in `runs` left on a device whose host was killed is removed there.

        Raises the devices' errors when not one can be used.
        """
        ready: dict[str, Target] = {}
        dead: dict[str, EdgesparseError] = {}

        def connect(device: Device) -> None:
            killed = open_runs.killed(runs, device.name)
            try:
                ready[device.name] = self._target(device, killed, listener, stop)
                open_runs.tidied(runs, device.name, killed)
            except EdgesparseError as error:
                dead[device.name] = error
            except Exception as error:  # A mistake of ours is no reason to stop the other devices.
                text = f"device {device.name}: {type(error).__name__}: {error}"
                dead[device.name] = EdgesparseError(text)
            if device.name in dead and len(devices) > 1:  # Else it is raised, and shown once.
                listener(events.StageFailed(set_up_label(device), (), str(dead[device.name])))

        try:
            at_once(connect, devices, stop)
            if dead and not ready:
                errors = [dead[device.name] for device in devices]
                if len(errors) == 1:
                    raise errors[0]
                lines = "".join(f"\n  {error}" for error in errors)
                raise EdgesparseError(f"no device can be used:{lines}")
            yield Fleet(
                tuple(ready[device.name] for device in devices if device.name in ready),
                tuple((d, str(dead[d.name])) for d in devices if d.name in dead),
            )
        finally:
            at_once(self._release, list(ready.values()), threading.Event())

    def close(self) -> None:
        """End all connections; emulated devices are shut down."""
        targets = list(self._targets.values())
        self._targets.clear()
        at_once(lambda target: target.close(), targets, threading.Event())

    def _target(
        self,
        device: Device,
        killed: Sequence[str],
        listener: events.Listener,
        stop: threading.Event,
    ) -> Target:
        """The device as it is connected, if it still answers; else connected anew."""
        connected = self._targets.pop(device.name, None)
        if connected is not None:
            connected.transport.stop = stop
            if connected.device == device and _answers(connected):
                self._targets[device.name] = connected
                clear(connected.transport, killed)
                return connected
            connected.close()
        with events.stage_progress(listener, set_up_label(device)) as progress:
            target = open_target(device, progress, killed)
        target.transport.stop = stop
        self._targets[device.name] = target
        return target

    def _release(self, target: Target) -> None:
        """After a command: nothing that it brought stays; a device that is away is let go of."""
        if not remove_used(target.transport):
            self._targets.pop(target.device.name, None)
            target.transport.close()


def _answers(target: Target) -> bool:
    try:
        return target.transport.run(["true"]).returncode == 0
    except EdgesparseError:
        return False


def set_up_label(device: Device) -> str:
    """How it is called while a device is waited for."""
    return f"set up {device.name}"


def at_once(work: Callable[[Item], None], items: Sequence[Item], stop: threading.Event) -> None:
    """Do `work` on every item in threads of their own.

    On Ctrl-C, or when one of them raises, sets `stop`, waits for all to end and raises that.
    """
    if not items:
        return
    with ThreadPoolExecutor(min(len(items), MAX_AT_ONCE)) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                future.result()
        # The others hear of it and end their devices' work before we leave.
        except BaseException:
            stop.set()
            raise
