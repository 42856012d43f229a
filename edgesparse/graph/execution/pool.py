"""Several worker processes, so that stages that do not wait for one another run side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesparse.devices.transport.interface import Progress
from edgesparse.graph.execution.worker import Worker
from edgesparse.spec.errors import UsageError
from edgesparse.stages.base.stage import Context

MOST_BY_DEFAULT = 4
_BYTES_EACH = 3 << 30
"""TensorFlow with a model, its gradients and what the data holds in memory takes less."""


def default_jobs() -> int:
    """So many stages at once as cores and free memory allow: small networks leave most of a machine
    idle, and a third training beside two others only takes their memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(MOST_BY_DEFAULT, cores or 1, _available_bytes() // _BYTES_EACH))


def checked_jobs(jobs: int | None) -> int:
    """What was asked for, or the default. Raises UsageError."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs}: at least one stage at a time")
    return default_jobs() if jobs is None else jobs


class Workers:
    """At most `count` processes, each started when it is first needed; a context manager that ends
    them."""

    def __init__(self, log: Path, count: int = 1) -> None:
        self.count = count
        self._all = [Worker(log) for _ in range(count)]
        self.log = log
        # The last that became free is the next to work: it has TensorFlow and the data in memory.
        self._free = self._all[::-1]
        self._changed = threading.Condition()

    @property
    def log(self) -> Path:
        """Where the first prints from its next call on; the others print to files of the same name
        with their number."""
        return self._all[0].log

    @log.setter
    def log(self, log: Path) -> None:
        self._all[0].log = log
        for number, worker in enumerate(self._all[1:], 2):
            worker.log = log.with_stem(f"{log.stem}-{number}")

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; the next call starts new ones."""
        for worker in self._all:
            worker.close()

    def call(
        self,
        function: str,
        context: Context,
        parts: dict[str, Any],
        *arguments: Any,
        progress: Progress = lambda _, __: None,
        answer: Callable[[Any], Any] | None = None,
        reads: dict[str, str] | None = None,
    ) -> Any:
        """As Worker.call, by the first that is free."""
        with self._leased() as worker:
            return worker.call(
                function, context, parts, *arguments, progress=progress, answer=answer, reads=reads
            )

    @property
    def idle(self) -> bool:
        """Whether none of them works."""
        return len(self._free) == self.count

    @property
    def unwatched(self) -> str:
        """As Worker.unwatched."""
        return next((worker.unwatched for worker in self._all if worker.unwatched), "")

    def interrupt(self) -> None:
        """End what goes on in other threads; their calls fail."""
        for worker in self._all:
            worker.kill()

    @contextmanager
    def _leased(self) -> Iterator[Worker]:
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            worker = self._free.pop()
        try:
            yield worker
        finally:
            with self._changed:
                self._free.append(worker)
                self._changed.notify()


def _available_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(found.split()[1]) << 10
    except (OSError, StopIteration, ValueError):
        return _BYTES_EACH * MOST_BY_DEFAULT
