"""The agent's events as validated data: its output comes from a device and is not trusted."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from edgesparse.spec.safe.text import Clean, clean

MAX_LINE = 2_000_000
PROTOCOL = 3
"""Version of the protocol between this package and its agent."""
PART_BYTES = 750_000
"""Bytes of an entry's outputs in one event, before base64."""
MAX_PARTS = 1000
MAX_OUTPUTS = 100
MAX_ROUNDS = 1000


def _version(text: str) -> str:
    if not re.fullmatch(r"[0-9][0-9A-Za-z.+!_-]*", text, re.ASCII):
        raise PydanticCustomError("version", "is not a version")
    return text


# Wide enough for every existing device, and far below overflows and large allocations.
_Text = Annotated[Clean, Field(max_length=4000)]
_Short = Annotated[Clean, Field(max_length=300)]
_Version = Annotated[str, Field(max_length=60), AfterValidator(_version)]
_Ms = Annotated[float, Field(ge=0, le=1e9)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Nanoseconds = Annotated[int, Field(ge=1, le=10**15)]
_Bytes = Annotated[int, Field(ge=0, le=2**50)]
_Count = Annotated[int, Field(ge=0, le=10**9)]
_Number = Annotated[int, Field(ge=0, lt=MAX_ROUNDS)]


class InvalidEventError(ValueError):
    """An event with an invalid value; the text names it."""


class _Event(BaseModel):
    # A newer agent can send more fields.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, strict=True)


class HostInfo(_Event):
    """System, CPU and runtimes of a device."""

    protocol: Literal[3]
    machine: _Short
    system: _Short
    release: _Short
    python: _Version
    cpu: _Short
    features: _Text | None = None
    """Feature flags of the CPU, as Linux lists them."""
    cores: Annotated[int, Field(ge=1, le=100_000)] | None
    memory_bytes: _Bytes | None
    governor: _Short | None
    runtimes: Annotated[dict[_Short, _Version], Field(max_length=20)]

    @property
    def cpu_flags(self) -> frozenset[str]:
        """`features` one by one; empty where Linux lists none."""
        return frozenset((self.features or "").split())


class Waiting(_Event):
    """Another job holds the device."""

    event: Literal["waiting"]


class Start(_Event):
    """The job starts or continues."""

    event: Literal["start"]
    job: _Short
    host: HostInfo


class Check(_Event):
    """A model was loaded and, with golden samples, compared."""

    event: Literal["check"]
    entry: _Short
    init_ms: _Ms
    agreement: _Share | None = None
    max_error: Annotated[float, Field(ge=0, le=1e30)] | None = None
    samples: _Count | None = None
    nodes: Annotated[
        list[tuple[_Short, Literal["taken", "left"], _Short]], Field(max_length=5000)
    ] = []
    """The delegate's report: each node, whether it was taken, and why not."""
    kernels: _Short | None = None
    """The instruction set that the delegate chose for the CPU."""


class Answers(_Event):
    """A part of one output for an entry's samples, float32 in base64; they precede its check."""

    event: Literal["answers"]
    entry: _Short
    output: Annotated[int, Field(ge=0, lt=MAX_OUTPUTS)]
    part: Annotated[int, Field(ge=0, lt=MAX_PARTS)]
    data: Annotated[str, Field(max_length=MAX_LINE // 2, pattern=r"^[A-Za-z0-9+/]*={0,2}$")]


class CpuState(_Event):
    """State of the CPU at one moment; None where the device does not report it."""

    mhz: Annotated[float, Field(ge=0, le=1e5)] | None
    temperature_c: Annotated[float, Field(ge=-300, le=1000)] | None
    throttled: bool | None


class Round(_Event):
    """One measuring process; latencies in nanoseconds."""

    event: Literal["round"]
    entry: _Short
    round: _Number
    # Nanoseconds as integers: JSON gives them back exactly.
    latency_ns: Annotated[list[_Nanoseconds], Field(min_length=1, max_length=10_000)]
    init_ms: _Ms
    first_ms: _Ms
    warmup_runs: _Count
    stable: bool
    peak_rss_bytes: _Bytes
    cpu_before: CpuState
    cpu_after: CpuState


class Failed(_Event):
    """An entry could not be checked (round is None) or measured."""

    event: Literal["failed"]
    entry: _Short
    round: _Number | None
    error: _Text


class End(_Event):
    """The job is done."""

    event: Literal["end"]


Event = Waiting | Start | Check | Answers | Round | Failed | End
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


# Pydantic's error types for a line that is not an event.
_NOT_AN_EVENT = {
    "json_invalid",
    "union_tag_invalid",
    "union_tag_not_found",
    "model_attributes_type",
}


def parse_event(line: str) -> Event | None:
    """Parse a line of the agent's output; None where it is not an event.

    Raises:
        InvalidEventError: it is an event with an invalid value.
    """
    # Cheap tests first: a device can print endlessly.
    if len(line) > MAX_LINE or not line.startswith("{"):
        return None
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        if first["type"] in _NOT_AN_EVENT:
            return None
        raise InvalidEventError(describe_error(error)) from None


def describe_error(error: ValidationError) -> str:
    """Describe the first validation error of data from a device in a line."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    value = first["input"]
    shown = f", not {str(value)[:40]}" if isinstance(value, str | float) else ""
    return clean(f"{field}: {first['msg'][:1].lower()}{first['msg'][1:]}{shown}", 200)
