"""What the agent says, as checked data. Its output comes from a device and is not trusted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MAX_LINE = 2_000_000

_Text = Annotated[str, Field(max_length=4000)]
_Short = Annotated[str, Field(max_length=300)]
_Ms = Annotated[float, Field(ge=0, le=1e9)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Nanoseconds = Annotated[int, Field(ge=0, le=10**15)]


class _Event(BaseModel):
    # A newer agent may say more; what it says beyond this is not used.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class HostInfo(_Event):
    """What a device is."""

    protocol: int
    machine: _Short
    system: _Short
    release: _Short
    python: _Short
    cpu: _Short
    features: _Text | None = None
    """Of the CPU, as Linux lists them."""
    cores: int | None
    memory_bytes: int | None
    governor: _Short | None
    runtimes: Annotated[dict[_Short, _Short], Field(max_length=20)]


class Waiting(_Event):
    """Another job holds the device."""

    event: Literal["waiting"]


class Start(_Event):
    """The job begins (or goes on)."""

    event: Literal["start"]
    job: _Short
    host: HostInfo


class Check(_Event):
    """A model loaded; with golden samples, it also answered."""

    event: Literal["check"]
    entry: _Short
    init_ms: _Ms
    agreement: _Share | None = None
    max_error: float | None = None
    samples: int | None = None


class Answers(_Event):
    """A part of the outputs for an entry's samples, float32 in base64; they precede its check."""

    event: Literal["answers"]
    entry: _Short
    part: Annotated[int, Field(ge=0, lt=1000)]
    data: Annotated[str, Field(max_length=MAX_LINE // 2)]


class CpuState(_Event):
    """The CPU at one moment; None for what the device does not tell."""

    mhz: float | None
    temperature_c: float | None
    throttled: bool | None


class Round(_Event):
    """One measuring process; latencies in nanoseconds."""

    event: Literal["round"]
    entry: _Short
    round: Annotated[int, Field(ge=0, lt=1000)]
    # Nanoseconds as integers: JSON gives them back exactly.
    latency_ns: Annotated[list[_Nanoseconds], Field(min_length=1, max_length=10_000)]
    init_ms: _Ms
    first_ms: _Ms
    warmup_runs: int
    stable: bool
    peak_rss_bytes: int
    cpu_before: CpuState
    cpu_after: CpuState


class Failed(_Event):
    """An entry could not be checked (round is None) or measured."""

    event: Literal["failed"]
    entry: _Short
    round: int | None
    error: _Text


class End(_Event):
    """The job is done."""

    event: Literal["end"]


Event = Waiting | Start | Check | Answers | Round | Failed | End
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def parse_event(line: str) -> Event | None:
    """One line of the agent's output, or None when it is something else."""
    # Cheap tests first: a device can print endlessly.
    if len(line) > MAX_LINE or not line.startswith("{"):
        return None
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError:
        return None
