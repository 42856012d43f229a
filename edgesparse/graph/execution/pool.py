"""A pool of worker processes, so that independent stages run in parallel."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesparse.graph.execution.worker import Worker
from edgesparse.spec.errors import UsageError
from edgesparse.stages.base.stage import PlanContext

MOST_BY_DEFAULT = 4
_BYTES_EACH = 3 << 30
"""Memory of a training with TensorFlow, its gradients and its data, at most."""


def default_jobs() -> int:
    """Return how many stages can run in parallel, by cores and free memory; at most 4, since
    TensorFlow uses several cores for a training."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(MOST_BY_DEFAULT, cores or 1, _available_bytes() // _BYTES_EACH))


def checked_jobs(jobs: int | None) -> int:
    """Return `jobs`, or the default. Raises UsageError where it is less than 1."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs}: must be at least 1")
    return default_jobs() if jobs is None else jobs


class Workers:
    """Up to `count` processes, each started at its first call; a context manager that ends them."""

    def __init__(self, log: Path, count: int = 1, make: Callable[[Path], Worker] = Worker) -> None:
        self.count = count
        self._all = [make(log) for _ in range(count)]
        self.log = log
        # The last one that became free is next: it has TensorFlow and the data in memory.
        self._free = self._all[::-1]
        self._changed = threading.Condition()

    @property
    def log(self) -> Path:
        """The log of the first from its next call on; the others have a number in its name."""
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
        context: PlanContext,
        parts: dict[str, Any],
        *arguments: Any,
        **options: Any,
    ) -> Any:
        """Call a function in the next free process; see Worker.call."""
        with self._leased() as worker:
            return worker.call(function, context, parts, *arguments, **options)

    @property
    def idle(self) -> bool:
        """Return whether no call is running."""
        return len(self._free) == self.count

    @property
    def unwatched(self) -> str:
        """The first note of a worker; see Worker.unwatched."""
        return next((worker.unwatched for worker in self._all if worker.unwatched), "")

    def interrupt(self) -> None:
        """Kill the processes; calls in other threads fail."""
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
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) << 10
    except (OSError, StopIteration, ValueError):
        return _BYTES_EACH * MOST_BY_DEFAULT
