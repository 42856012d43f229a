"""The results of a run: what every report, tool and test reads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from edgesparse.measure.provenance import Made
from edgesparse.measure.rows import Data, GateResult, Row, Size
from edgesparse.measure.selection import best_row
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.files import replace_json

if TYPE_CHECKING:
    import pandas

SCHEMA_VERSION = 2
"""2: rows have the metrics of their task; runs of 1 are read as accuracy."""


class DeviceInfo(Data):
    """What a device said it is; with `error`, why it could not be used."""

    name: str
    description: str
    machine: str = ""
    cpu: str = ""
    cores: int | None = None
    python: str = ""
    governor: str | None = None
    error: str | None = None


class ReleaseInfo(Data):
    """What became current on a device; `try_it` is a command that runs it, while it lasts."""

    device: str
    pipeline: str
    variant: str
    runtime: str
    digest: str
    previous: str | None
    place: str
    try_it: str | None
    doubt: str | None = None
    """Why another variant may be better there."""
    update_bytes: Size | None = None
    """What its model costs on the way there; None on this machine."""


class Results(Data):
    """A run."""

    schema_version: int = SCHEMA_VERSION
    run: str
    started: str
    """UTC, ISO 8601."""
    finished: bool = True
    quick: bool = False
    host: dict[str, Any]
    versions: dict[str, str]
    pipeline: str
    pipeline_digest: str
    commit: str = ""
    """Of git, where the project is in a repository; with a plus where files had changed since."""
    baseline: str
    devices: list[DeviceInfo] = Field(default_factory=list)
    rows: list[Row] = Field(default_factory=list)
    gates: list[GateResult] = Field(default_factory=list)
    releases: list[ReleaseInfo] = Field(default_factory=list)
    failures: list[str] = Field(default_factory=list)
    """What failed beside the rows."""
    notes: list[str] = Field(default_factory=list)
    made: Made = Made()
    """How the variants were made."""
    source: list[str] = Field(default_factory=list)
    """The lines of the pipeline's file."""
    command: str = ""
    """What was run."""

    @property
    def failed(self) -> bool:
        return bool(self.failures) or any(row.status == "failed" for row in self.rows)

    @property
    def gates_met(self) -> bool:
        return all(gate.passed for gate in self.gates)

    def best(self, device: str | None = None) -> Row | None:
        """The fastest row of a device whose gates are met and whose accuracy is kept; None where
        there is none.

        Args:
            device: its name; may be left out where there is one.

        Raises:
            UsageError: no such device, or several and none named.
        """
        names = [info.name for info in self.devices]
        if device is None and len(names) == 1:
            device = names[0]
        if device not in names:
            told = (
                f"no device {device!r} in run {self.run}" if device else "name one of the devices"
            )
            raise UsageError(f"{told}; there: {', '.join(names) or 'none'}")
        return best_row([row for row in self.rows if row.device == device], self.gates)

    def to_frame(self) -> pandas.DataFrame:
        """The rows as a pandas DataFrame; a nested value's column is named after its path, such as
        `latency_ms.p50`.

        Raises:
            EdgesparseError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise EdgesparseError(
                "a data frame needs pandas, which is not installed: pip install pandas"
            ) from None
        return pandas.json_normalize([row.model_dump(mode="json") for row in self.rows])


def write_results(results: Results, path: Path) -> None:
    """Write whole or not at all."""
    replace_json(path, results.model_dump(mode="json"))


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number that can be computed with")
    return number


def read_results(path: Path) -> Results:
    """Raises UsageError where the file is missing, damaged or of a later schema."""
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such run; 'edgesparse report --list' shows the runs"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    try:
        results = Results.model_validate(json.loads(content, parse_float=_finite))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: is no results file: {place}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no results file: {error}") from None
    if results.schema_version > SCHEMA_VERSION:
        raise UsageError(f"{path}: was written by a later edgesparse; upgrade this one")
    return results
