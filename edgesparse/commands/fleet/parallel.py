"""Devices in parallel: each in a thread of its own, so that none waits for another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgesparse.commands.fleet.target import Target, open_target
from edgesparse.devices.agent.run_job import Stopped
from edgesparse.devices.setup.connection import first_use
from edgesparse.devices.setup.tidy import clear, remove_used
from edgesparse.devices.transport.interface import Progress
from edgesparse.graph import events, open_runs
from edgesparse.spec.device import Device
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.safe.journal import Journal

# Threads mostly wait; more connections at a time exceed servers' limits.
MAX_THREADS = 64
Item = TypeVar("Item")


@dataclass(frozen=True)
class Fleet:
    """Connected devices, and (device, error) of those that failed."""

    targets: tuple[Target, ...]
    failed: tuple[tuple[Device, str], ...]


class Connections:
    """Devices that stay connected between commands."""

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
        """Connect to all devices in parallel and set up those that need it, for a block.

        Temporary files on the devices are removed at its end; so are at its start those of runs in
        `runs` whose host was killed.

        Raises:
            EdgesparseError: no device can be used; the message has each device's error.
        """
        ready: dict[str, Target] = {}
        failed: dict[str, EdgesparseError] = {}

        def connect(device: Device) -> None:
            killed = open_runs.killed(runs, device.name)
            try:
                journal = Journal(runs.parent / "leftovers" / device.name)
                ready[device.name] = self._target(device, killed, journal, listener, stop)
                open_runs.mark_clean(runs, device.name, killed)
            except EdgesparseError as error:
                failed[device.name] = error
            except Exception as error:  # A bug must not stop the other devices.
                text = f"device {device.name}: {type(error).__name__}: {error}"
                failed[device.name] = EdgesparseError(text)
            if device.name in failed and len(devices) > 1:  # Else it is raised, and shown once.
                listener(events.StageFailed(set_up_label(device), (), str(failed[device.name])))

        try:
            for_each(connect, devices, stop)
            if failed and not ready:
                errors = [failed[device.name] for device in devices]
                if len(errors) == 1:
                    raise errors[0]
                lines = "".join(f"\n  {error}" for error in errors)
                raise EdgesparseError(f"no device can be used:{lines}")
            yield Fleet(
                tuple(ready[device.name] for device in devices if device.name in ready),
                tuple((d, str(failed[d.name])) for d in devices if d.name in failed),
            )
        finally:
            for_each(self._release, list(ready.values()), threading.Event())

    def close(self) -> None:
        """End all connections; emulated devices are shut down."""
        targets = list(self._targets.values())
        self._targets.clear()
        for_each(lambda target: target.close(), targets, threading.Event())

    def _target(
        self,
        device: Device,
        killed: Sequence[str],
        journal: Journal,
        listener: events.Listener,
        stop: threading.Event,
    ) -> Target:
        """Reuse the connection of a device that still responds, or connect again."""
        connected = self._targets.pop(device.name, None)
        if connected is not None:
            connected.transport.stop = stop
            if connected.device == device and _is_responding(connected):
                self._targets[device.name] = connected
                clear(connected.transport, killed)
                return connected
            connected.close()
        with set_up_progress(device, listener) as progress:

            def until_stopped(share: float, text: str) -> None:
                # A board can take minutes to boot.
                if stop.is_set():
                    raise Stopped(f"device {device.name}: stopped")
                progress(share, text)

            target = open_target(device, until_stopped, killed, journal)
        target.transport.stop = stop
        self._targets[device.name] = target
        return target

    def _release(self, target: Target) -> None:
        """Remove temporary files after a command; drop a device that does not respond."""
        if not remove_used(target.transport):
            self._targets.pop(target.device.name, None)
            target.transport.close()


def _is_responding(target: Target) -> bool:
    try:
        return target.transport.run(["true"]).returncode == 0
    except EdgesparseError:
        return False


@contextmanager
def set_up_progress(device: Device, listener: events.Listener) -> Iterator[Progress]:
    """Yield a function that reports the progress of connecting to a device; says first what takes
    minutes."""
    note = first_use(device)
    if note is not None:
        listener(events.Note(note))
    with events.stage_progress(listener, set_up_label(device)) as progress:
        yield progress


def set_up_label(device: Device) -> str:
    """Label of the stage in progress events."""
    return f"set up {device.name}"


def for_each(work: Callable[[Item], None], items: Sequence[Item], stop: threading.Event) -> None:
    """Call `work` on every item, each in a thread.

    On Ctrl-C, or when a call raises, sets `stop`, waits for all threads and raises the exception.
    """
    if not items:
        return
    with ThreadPoolExecutor(min(len(items), MAX_THREADS)) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                future.result()
        # The other threads end their devices' work before the exception leaves.
        except BaseException:
            stop.set()
            raise
