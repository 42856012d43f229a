"""The result of compress, and its time limit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from edgesparse.measure.results import Results
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.files import replace_bytes
from edgesparse.tflite.post_training.pruning import TIMEOUT_SECONDS


@dataclass(frozen=True)
class Compressed:
    """A compressed model, written to `target`, and its measurement. `output_error` is that of a
    .tflite file's worst output, see `tflite.post_training.judgement`, and `lost` what each output
    loses; None and empty for a Keras model."""

    source: str
    target: str
    variant: str
    bytes_before: int
    bytes_after: int
    sparsity: float | None
    output_error: float | None
    results: Results
    lost: tuple[str, ...] = ()

    @property
    def change(self) -> str:
        """Its name, and its size before and after, in kB."""
        sizes = (f"{size / 1000:,.1f} kB" for size in (self.bytes_before, self.bytes_after))
        return f"{self.variant}, {' -> '.join(sizes)}"


class Deadline:
    """The end of the time in which levels are tried."""

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def is_set(self) -> bool:
        return self._end is not None

    @property
    def has_passed(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def check(self, source: Path) -> None:
        """Raise EdgesparseError after the end."""
        if self.has_passed:
            raise EdgesparseError(f"{source}: --minutes ended before zeros were within the limit")

    @property
    def seconds_left(self) -> float:
        most = float(TIMEOUT_SECONDS)
        return most if self._end is None else max(1.0, min(most, self._end - time.monotonic()))


def write(target: Path, content: bytes) -> None:
    try:
        replace_bytes(target, content)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None
