"""A Dask scheduler and workers on this machine that end when whoever started them does.

Not dask's LocalCluster: it starts workers by multiprocessing, which runs a user's script again that
lacks a __main__ guard, and has the scheduler share its process with the run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.safe.temporary import TemporaryFolder
from edgesparse.spec.safe.text import clean

START_SECONDS = 60.0
_POLL_SECONDS = 0.05
# It reads what nobody writes: when the other end is gone, even by kill -9, so is all of this.
_BOOT = """
import json, os, runpy, signal, sys, threading
sys.path[:] = json.loads(sys.argv[1])
def watch():
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
sys.argv = ["dask", *sys.argv[2:]]
runpy.run_module("dask", run_name="__main__")
"""


class LocalDask:
    """A scheduler and `count` workers, each with one thread; a worker that dies is started anew."""

    def __init__(self, count: int, failures: int) -> None:
        """`failures`: so often a task is tried elsewhere before it counts as lost.

        Raises EdgesparseError where the scheduler does not start.
        """
        self._folder = TemporaryFolder()
        self._environment = {
            **os.environ,
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(failures),
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        file = self._folder.path / "scheduler.json"
        try:
            self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                        "--scheduler-file", str(file))  # fmt: skip
            self.address = self._address(file)
            self._start("worker", self.address, "--nworkers", str(count), "--nthreads", "1",
                        "--name", "here", "--no-dashboard",
                        "--local-directory", str(self._folder.path))  # fmt: skip
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all of them."""
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self._processes.clear()
        self._folder.close()

    def _start(self, *words: str) -> None:
        with (self._folder.path / "log.txt").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", _BOOT, json.dumps(sys.path), *words],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    # A session of its own: Ctrl-C in the terminal reaches the other process only.
                    start_new_session=True,
                )
            )

    def _address(self, file: Path) -> str:
        """Where the scheduler listens, once it does."""
        (process,) = self._processes
        until = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < until:
            with suppress(OSError, ValueError):
                return str(json.loads(file.read_text())["address"])
            time.sleep(_POLL_SECONDS)
        raise EdgesparseError(f"Dask's scheduler does not start: {self.last_said()}")

    def last_said(self) -> str:
        """The last line that any of them printed."""
        lines = (self._folder.path / "log.txt").read_text(errors="replace").strip().splitlines()
        return clean((lines or ["?"])[-1], 300)
