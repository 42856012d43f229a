"""Shared parts of the YAML models: strict keys, valid names, SSH connections, plug-ins."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """Immutable data; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OneOf(Strict):
    """A choice between keys: exactly one of them must be set."""

    @model_validator(mode="after")
    def _exactly_one(self) -> OneOf:
        require_one(self, list(type(self).model_fields))
        return self


def require_one(model: BaseModel, names: Sequence[str]) -> None:
    """Raise PydanticCustomError where not exactly one of these fields is set."""
    chosen = [name for name in names if getattr(model, name) is not None]
    if len(chosen) != 1:
        raise PydanticCustomError(
            "one_of",
            "set exactly one of {choices}, not {chosen}",
            {
                "choices": f"{', '.join(names[:-1])} and {names[-1]}",
                "chosen": " and ".join(chosen) or "none",
            },
        )


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
"""A name that is safe as a file name, in a shell and in a table."""


class Ssh(Strict):
    """A machine behind an SSH server; ~/.ssh/config applies to what is not set here."""

    host: str = Field(
        pattern=r"^[A-Za-z0-9:][A-Za-z0-9._:%-]*$",
        max_length=255,
        description="Host name, address, or an alias from ~/.ssh/config.",
    )
    user: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9._-]*$", max_length=64, description="User name."
    )
    port: int | None = Field(None, ge=1, le=65535, description="Port of the SSH server.")
    identity_file: str | None = Field(None, description="Private key; no other is tried.")
    known_hosts: str | None = Field(
        None, description="File with the device's host key, instead of ~/.ssh/known_hosts."
    )
    config: str | None = Field(
        None, description="ssh configuration file, instead of ~/.ssh/config."
    )
    python: str = Field(
        "python3",
        pattern=r"^[~/A-Za-z0-9._][~/A-Za-z0-9._+-]*$",
        description="Python on the device, 3.7 or newer.",
    )
    connect_timeout_seconds: float = Field(
        10.0, gt=0, le=600, description="Timeout of a connection."
    )


def installed_version(distribution: str) -> str:
    """Return the version of an installed distribution; empty where it is missing, as it is where a
    build has another name."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def plugins(package: str) -> dict[str, str]:
    """Return references by name from installed distributions for a package such as "models": their
    entry points of the group edgesparse.models. None of their code is imported."""
    return {
        point.name: point.value for point in metadata.entry_points(group=f"edgesparse.{package}")
    }
