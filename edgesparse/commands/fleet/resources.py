"""Resources of a project: store, worker processes, cluster and connected devices, each opened on
first use, here and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from edgesparse.commands.fleet.parallel import Connections, Fleet, set_up_progress
from edgesparse.commands.fleet.target import Target
from edgesparse.devices.setup.connection import connected
from edgesparse.devices.transport.interface import Progress, Transport
from edgesparse.graph import events
from edgesparse.graph.execution.cluster import DaskCluster
from edgesparse.graph.execution.pool import Workers, checked_jobs
from edgesparse.graph.progress import default_listener
from edgesparse.graph.workspace import Workspace
from edgesparse.spec.device import Device
from edgesparse.spec.reading.load import find_device, find_devices

DeviceName = str | Path | Device
"""The name of a file in devices/, a path, an address (USER@HOST[:PORT]), or a Device."""
Self = TypeVar("Self", bound="Resources")


class Resources:
    """A project's folder and its open resources; a context manager that closes them."""

    def __init__(
        self,
        folder: str | Path = ".",
        *,
        listener: events.Listener | None = None,
        jobs: int | None = None,
        cluster: str | None = None,
        workers: Workers | None = None,
    ) -> None:
        """
        Args:
            folder: the project, with devices/ and .edgesparse.
            listener: called with each event of `edgesparse.graph.events`, for example `print`;
                default: shows progress in Jupyter notebooks, else nothing.
            jobs: stages that run in parallel; default: by cores and memory.
            cluster: address or file of the scheduler of a Dask cluster that runs the stages.
            workers: processes shared by several projects; closing this one keeps them.

        Raises:
            UsageError: `jobs` is less than 1.
        """
        self.folder = Path(folder)
        self.listener = events.thread_safe(listener or default_listener())
        self.jobs = checked_jobs(jobs)
        self._address = cluster
        self._cluster: DaskCluster | None = None
        self._shared_workers = workers
        self._private_workers: Workers | None = None
        self._connections = Connections()
        self._workspaces: dict[str | None, Workspace] = {}

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End processes and connections; later use opens them again."""
        try:
            self._connections.close()
        finally:
            if self._private_workers is not None:
                self._private_workers.close()
            if self._cluster is not None:
                self._cluster.close()
                self._cluster = None

    def workspace(self, shared: str | None = None) -> Workspace:
        """Workspace of artifacts and runs; `shared` is the URL of a store of several machines."""
        if shared not in self._workspaces:
            self._workspaces[shared] = Workspace(self.folder, shared)
        return self._workspaces[shared]

    def workers(self, log: Path) -> Workers:
        """Worker processes for stages; their output goes to `log` from now on."""
        workers = self._shared_workers or self._private_workers
        if workers is None:
            workers = self._private_workers = Workers(log, self.jobs)
        workers.log = log
        return workers

    def cluster(self) -> DaskCluster | None:
        """Dask cluster that stages run on, connected; None where they run on this machine.

        Raises:
            UsageError: no scheduler answers, or Dask is not installed.
        """
        if self._cluster is not None and self._cluster.interrupted:
            self._cluster = None
        if self._cluster is None and self._address is not None:
            self._cluster = DaskCluster(self._address)
        return self._cluster

    def device(self, device: DeviceName) -> Device:
        """Read a device file. Raises UsageError."""
        return find_device(device, self.folder)

    def devices(self, devices: DeviceName | Sequence[DeviceName]) -> list[Device]:
        """Read several device files and groups, each device once. Raises UsageError."""
        return find_devices(devices, self.folder)

    @contextmanager
    def connect(self, devices: Sequence[Device], stop: threading.Event) -> Iterator[Fleet]:
        """Connect and set up devices, for a block; `stop` ends their work.

        Raises the devices' errors where not one can be used.
        """
        runs = self.workspace().runs
        with self._connections.use(devices, runs, self.listener, stop) as fleet:
            yield fleet

    @contextmanager
    def target(self, device: DeviceName) -> Iterator[Target]:
        """Connect and set up one device, for a block."""
        with self.connect([self.device(device)], threading.Event()) as fleet:
            yield fleet.targets[0]

    @contextmanager
    def transport(self, device: Device) -> Iterator[tuple[Transport, Progress]]:
        """Connect to a device without setting it up, for a block.

        Yields:
            The transport and a function that reports progress.
        """
        with (
            set_up_progress(device, self.listener) as progress,
            connected(device, progress) as transport,
        ):
            yield transport, progress
