"""Jobs for a device: models to check and to measure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A model on a runtime with a number of threads.

    Args:
        delegate: a name, or the library and options of an external delegate; a library that is a
            Path is copied to the device.
        golden: a file of inputs and expected outputs; see samples.py.
        samples: a file of inputs whose outputs the device returns.
        tolerance: of golden outputs, as a share of an output's range.
        golden_samples: how many golden samples are compared; default: all.
        remote_path: where the model is on the device already.
        shapes: (tensor, shape) of inputs with dynamic dimensions.
        reduced: for each output, whether only the index of its largest value is returned.
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
    remote_path: str | None = None
    shapes: tuple[tuple[int, tuple[int, ...]], ...] = ()
    reduced: tuple[bool, ...] = ()

    @property
    def files(self) -> list[Path]:
        """The files to copy to the device."""
        model = self.model if self.remote_path is None else None
        files = (model, self.golden, self.samples, self.library)
        return [file for file in files if file is not None]

    @property
    def library(self) -> Path | None:
        """The delegate's library, where it is copied to the device."""
        external = {} if isinstance(self.delegate, str) else self.delegate
        library = external.get("library")
        return library if isinstance(library, Path) else None


@dataclass(frozen=True)
class Settings:
    """Settings of a round; see edgesparse.spec.pipeline.Benchmark."""

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
    """Return a job that loads each model and compares its outputs, without measuring."""
    return Job(job_id, 0, Settings(0, 0.0, 0, 0.0, timeout_seconds), tuple(entries))


def new_id(name: str) -> str:
    """Return a unique id for a run or job; ids sort by time."""
    now = datetime.now(timezone.utc)
    # Microseconds, so that ids of the same second sort by time, too; and what separates processes.
    return f"{now:%Y%m%d-%H%M%S}-{name}-{now.microsecond:05x}{uuid.uuid4().hex[:3]}"
