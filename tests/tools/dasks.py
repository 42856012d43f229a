"""A real Dask scheduler and workers, each a process that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.conftest import ROOT
from tests.devices.ondevice.test_detached import await_end
from tests.tools.sshd import free_port


class Dask:
    """A scheduler at a port of its own, and workers without nannies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.file = folder / "scheduler.json"
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Dask:
        self.start_scheduler()
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.workers, self.scheduler]:
            if process is not None:
                self.kill(process)

    def start_scheduler(self) -> None:
        self.scheduler = self._start(
            ["scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard",
             "--scheduler-file", str(self.file)],
            "scheduler",
        )  # fmt: skip

    def start_worker(self, name: str, *before: str) -> subprocess.Popen[bytes]:
        """`before` are words of a command that runs the worker's."""
        process = self._start(
            ["worker", self.address, "--nworkers", "1", "--nthreads", "1", "--no-nanny", "--name",
             name, "--no-dashboard", "--local-directory", str(self.folder / name)],
            name,
            before,
        )  # fmt: skip
        self.workers.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        await_end([process.pid])

    def _start(
        self, words: list[str], name: str, before: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [*before, sys.executable, "-m", "dask", *words],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT), "TF_USE_LEGACY_KERAS": "1"},
                start_new_session=True,
                cwd=self.folder,
            )
