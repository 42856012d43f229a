"""Results of a run: results.json, which every report, tool and test reads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from edgesparse.measure.rows import CLEANED, Data, GateResult, Row, Size
from edgesparse.measure.selection import best_row
from edgesparse.measure.training_details import Provenance
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.files import replace_json
from edgesparse.spec.safe.text import clean_all

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

SCHEMA_VERSION = 3
"""Raised where a key changes its meaning or name; results of another schema are listed, and not
read further."""


class DeviceInfo(Data):
    """A device of the run, as its agent describes it."""

    name: str
    description: str
    """From the device file."""
    machine: str = ""
    """Architecture, such as aarch64."""
    cpu: str = ""
    cores: int | None = None
    python: str = ""
    governor: str | None = None
    """CPU frequency governor."""
    error: str | None = None
    """Why the device could not be used."""


class ReleaseInfo(Data):
    """A release that became current on a device."""

    device: str
    pipeline: str
    variant: str
    runtime: str
    digest: str
    """Names the release; `edgesparse device releases` lists them."""
    previous: str | None
    """Digest of the release that was current before."""
    folder: str
    """The release's folder on the device."""
    run_command: str | None
    """A command that runs it on the device; null on an emulated device, which forgets it."""
    warning: str | None = None
    """Why another variant can be faster on a real board."""
    transfer_bytes: Size | None = None
    """Compressed size of its model on the wire to the device; null on this machine."""


class Results(Data):
    """The results of a run: runs/ID/results.json."""

    schema_version: int = SCHEMA_VERSION
    run: str
    """The run's id."""
    started: str
    """UTC, ISO 8601."""
    finished: bool = True
    """false where the run was interrupted."""
    quick: bool = False
    """Whether it was measured briefly (`--quick`): indicative only."""
    host: dict[str, Any]
    """This machine: architecture and system."""
    versions: dict[str, str]
    """Versions of edgesparse and of the libraries that shape models."""
    pipeline: str
    """The pipeline's name; "bench" for files without a pipeline."""
    pipeline_digest: str
    commit: str = ""
    """The project's git commit, with a plus where files had changed since."""
    baseline: str
    """The variant that speed-ups and drops refer to."""
    devices: list[DeviceInfo] = Field(default_factory=list)
    rows: list[Row] = Field(default_factory=list)
    gates: list[GateResult] = Field(default_factory=list)
    releases: list[ReleaseInfo] = Field(default_factory=list)
    failures: list[str] = Field(default_factory=list)
    """Failures besides those of rows."""
    notes: list[str] = Field(default_factory=list)
    """Notes on the whole run."""
    advice: list[str] = Field(default_factory=list)
    """Predictions that the measurement confirmed, such as zeros that save no time."""
    provenance: Provenance = Provenance()
    pipeline_source: list[str] = Field(default_factory=list)
    """The lines of the pipeline's file."""
    command: str = ""
    """The command line that repeats the run."""

    @property
    def failed(self) -> bool:
        """True where a row failed, or anything besides."""
        return bool(self.failures) or any(row.status == "failed" for row in self.rows)

    @property
    def gates_met(self) -> bool:
        """True where every gate passed."""
        return all(gate.passed for gate in self.gates)

    def best(self, device: str | None = None) -> Row | None:
        """Select the row of a device that `release: auto` releases, by the rule of
        `measure.selection.best_row`. `print` shows it in a line.

        Args:
            device: its name; optional where the run has one device.

        Returns:
            The row, or None where no row meets its gates and keeps its metric.

        Raises:
            UsageError: the run has no such device, or several and none was named.
        """
        names = [info.name for info in self.devices]
        if device is None and len(names) == 1:
            device = names[0]
        if device not in names:
            cause = f"no device {device!r} in run {self.run}" if device else "several devices"
            raise UsageError(f"{cause}; choose one of: {', '.join(names) or 'none'}")
        return best_row([row for row in self.rows if row.device == device], self.gates)

    def plot(self) -> Figure:
        """Draw metric over latency, an axes for each device, runtime and number of threads; see
        `edgesparse.plot`."""
        import edgesparse

        return edgesparse.plot(self)

    def _repr_html_(self) -> str:
        """Format the tables for a notebook."""
        import edgesparse

        return edgesparse.html_tables(self)

    def to_frame(self) -> pandas.DataFrame:
        """Return the rows as a pandas DataFrame; the column of a nested value is named by its path,
        such as `latency_ms.p50`.

        Raises:
            EdgesparseError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise EdgesparseError(
                "to_frame needs pandas, which is not installed: pip install pandas"
            ) from None
        return pandas.json_normalize([row.model_dump(mode="json") for row in self.rows])


def write_results(results: Results, path: Path) -> None:
    """Write results.json atomically."""
    replace_json(path, results.model_dump(mode="json"))


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def read_results(path: Path) -> Results:
    """Read results.json.

    Raises:
        SchemaError: the file has another schema version.
        UsageError: it is missing or damaged.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: run not found; 'edgesparse report --list' shows runs") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    try:
        document = clean_all(json.loads(content, parse_float=_finite))
        version = document.get("schema_version") if isinstance(document, dict) else None
        if isinstance(version, int) and version != SCHEMA_VERSION:
            raise SchemaError(path, version)
        return Results.model_validate(document, context=CLEANED)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: invalid results file: {key}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: invalid results file: {error}") from None


class SchemaError(UsageError):
    """Results of another schema version, which this version does not read."""

    def __init__(self, path: Path, version: int) -> None:
        self.run = path.parent.name
        age, advice = "an earlier", "run the pipeline again"
        if version > SCHEMA_VERSION:
            age, advice = "a later", "upgrade this one"
        self.status = f"written by {age} edgesparse (schema {version})"
        super().__init__(f"{path}: {self.status}; {advice}")


def schema_text() -> str:
    """Return the JSON Schema of results.json."""
    schema = Results.model_json_schema(mode="serialization")
    draft = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps({"$schema": draft, **schema}, indent=1)
