"""What a device is asked to do: models to check and to measure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One model on one runtime with one number of threads.

    `samples` is a file of inputs, which the device answers; `golden` one of inputs and outputs, of
    which the first `golden_samples` are used (default: all); see samples.py. `reduced` says of each
    output whether its answers are the numbers of its largest values only. `shapes` are those of
    inputs, by tensor, that the file leaves open. `delegate` is a name, or the library and options
    of an external one. `place` is where the model lies on the device already.
    """

    name: str
    model: Path
    runtime: str
    delegate: str | Mapping[str, Any]
    threads: int
    golden: Path | None = None
    samples: Path | None = None
    tolerance: float = 0.0
    golden_samples: int | None = None
    place: str | None = None
    shapes: tuple[tuple[int, tuple[int, ...]], ...] = ()
    reduced: tuple[bool, ...] = ()

    @property
    def files(self) -> list[Path]:
        """What must be on the device for it."""
        model = self.model if self.place is None else None
        return [file for file in (model, self.golden, self.samples) if file is not None]


@dataclass(frozen=True)
class Settings:
    """How a round measures; see edgesparse.spec.pipeline.Benchmark."""

    warmup_runs: int
    warmup_seconds: float
    runs: int
    seconds: float
    timeout_seconds: float


@dataclass(frozen=True)
class Job:
    """Entries to check and then to measure in `rounds` interleaved rounds (0: check only)."""

    id: str
    rounds: int
    settings: Settings
    entries: tuple[Entry, ...]


def check_only(entries: Sequence[Entry], job_id: str, timeout_seconds: float) -> Job:
    """A job that loads each model and compares its answers, but measures nothing."""
    return Job(job_id, 0, Settings(0, 0.0, 0, 0.0, timeout_seconds), tuple(entries))


def new_id(name: str) -> str:
    """An id that no other run or job has; sorted by name is sorted by time."""
    moment = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    # The suffix keeps two of one second apart.
    return f"{moment}-{name}-{uuid.uuid4().hex[:6]}"
