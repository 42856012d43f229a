"""What the agent says, as checked data. Its output comes from a device and is not trusted."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from edgesparse.spec.safe.text import Clean, clean

MAX_LINE = 2_000_000
PROTOCOL = 3
"""Of the agent that is sent; it must answer with the same."""
PART_BYTES = 750_000
"""How much of an entry's outputs one event holds."""
MAX_PARTS = 1000
MAX_OUTPUTS = 100
MAX_ROUNDS = 1000


def _version(text: str) -> str:
    if not re.fullmatch(r"[0-9][0-9A-Za-z.+!_-]*", text, re.ASCII):
        raise PydanticCustomError("version", "is no version")
    return text


# Wide enough for every device that there is, and far from what arithmetic or memory cannot take.
_Text = Annotated[Clean, Field(max_length=4000)]
_Short = Annotated[Clean, Field(max_length=300)]
_Version = Annotated[str, Field(max_length=60), AfterValidator(_version)]
_Ms = Annotated[float, Field(ge=0, le=1e9)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Nanoseconds = Annotated[int, Field(ge=1, le=10**15)]
_Bytes = Annotated[int, Field(ge=0, le=2**50)]
_Count = Annotated[int, Field(ge=0, le=10**9)]
_Number = Annotated[int, Field(ge=0, lt=MAX_ROUNDS)]


class ImpossibleError(ValueError):
    """An event that no agent of ours says; the text says what is wrong with it."""


class _Event(BaseModel):
    # A newer agent may say more; what it says beyond this is not used.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, strict=True)


class HostInfo(_Event):
    """What a device is."""

    protocol: Literal[3]
    machine: _Short
    system: _Short
    release: _Short
    python: _Version
    cpu: _Short
    features: _Text | None = None
    """Of the CPU, as Linux lists them."""
    cores: Annotated[int, Field(ge=1, le=100_000)] | None
    memory_bytes: _Bytes | None
    governor: _Short | None
    runtimes: Annotated[dict[_Short, _Version], Field(max_length=20)]


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
    max_error: Annotated[float, Field(ge=0, le=1e30)] | None = None
    samples: _Count | None = None


class Answers(_Event):
    """A part of one output for an entry's samples, float32 in base64; they precede its check."""

    event: Literal["answers"]
    entry: _Short
    output: Annotated[int, Field(ge=0, lt=MAX_OUTPUTS)]
    part: Annotated[int, Field(ge=0, lt=MAX_PARTS)]
    data: Annotated[str, Field(max_length=MAX_LINE // 2, pattern=r"^[A-Za-z0-9+/]*={0,2}$")]


class CpuState(_Event):
    """The CPU at one moment; None for what the device does not tell."""

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


# What pydantic says of a line that is no event of ours at all.
_NOISE = {"json_invalid", "union_tag_invalid", "union_tag_not_found", "model_attributes_type"}


def parse_event(line: str) -> Event | None:
    """One line of the agent's output, or None when it is something else.

    Raises:
        ImpossibleError: it is an event with a value that cannot be.
    """
    # Cheap tests first: a device can print endlessly.
    if len(line) > MAX_LINE or not line.startswith("{"):
        return None
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        if first["type"] in _NOISE:
            return None
        raise ImpossibleError(what_is_wrong(error)) from None


def what_is_wrong(error: ValidationError) -> str:
    """The first thing that is wrong with data from a device, in a line."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    given = first["input"]
    shown = f", not {str(given)[:40]}" if isinstance(given, str | float) else ""
    return clean(f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}{shown}", 200)
