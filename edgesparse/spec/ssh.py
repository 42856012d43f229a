"""How to reach a machine over SSH."""

from __future__ import annotations

from pydantic import Field

from edgesparse.spec.base import Strict


class Ssh(Strict):
    """A device behind an SSH server; what is not said here comes from ~/.ssh/config."""

    host: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:%-]*$",
        max_length=255,
        description="Host name, address, or an alias from ~/.ssh/config.",
    )
    user: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9._-]*$", max_length=64, description="User there."
    )
    port: int | None = Field(None, ge=1, le=65535, description="Port of its SSH server.")
    identity_file: str | None = Field(None, description="Private key; no other one is tried.")
    known_hosts: str | None = Field(
        None, description="File with the device's host key, instead of ~/.ssh/known_hosts."
    )
    config: str | None = Field(
        None, description="ssh configuration file, instead of ~/.ssh/config."
    )
    python: str = Field(
        "python3", pattern=r"^[~/A-Za-z0-9._][~/A-Za-z0-9._+-]*$", description="Python there."
    )
    connect_timeout_seconds: float = Field(
        10.0, gt=0, le=600, description="Give up connecting after this long."
    )
