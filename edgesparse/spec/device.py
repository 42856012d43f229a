"""The device file: where models run and with which runtimes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.base import Name, Strict

RuntimeName = Literal["tflite-runtime", "ai-edge-litert"]
Delegate = Literal["xnnpack", "none"]
DEFAULT_WORKDIR = "~/.cache/edgesparse"


class Runtime(Strict):
    """A TFLite runtime on the device."""

    name: RuntimeName = Field(description="The distribution's name.")
    version: str | None = Field(
        None, pattern=r"^[0-9][0-9A-Za-z.+-]*$", description="Fail when another one is installed."
    )
    optional: bool = Field(
        False, description="Leave it out, with a note, where it is not installed."
    )


class Local(Strict):
    """This machine, without a network in between."""

    python: str | None = Field(
        None, description="Python that has the runtimes; default: the one edgesparse runs in."
    )


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


class Emulator(Strict):
    """A Raspberry Pi that QEMU emulates on this machine."""

    cpu: Literal["cortex-a76", "cortex-a72", "cortex-a53"] = Field(
        "cortex-a76",
        description="cortex-a76 is a Pi 5's, cortex-a72 a Pi 4's, cortex-a53 a Zero 2's.",
    )
    memory: int = Field(1024, ge=256, le=16384, description="MiB of memory.")
    clock: Literal["instructions", "wall"] = Field(
        "instructions",
        description="instructions: its clock counts executed instructions, 2 ns each, which makes "
        "figures exact and repeatable; wall: time as it passes here.",
    )


class Connect(Strict):
    """How to reach the device: exactly one of them."""

    local: Local | None = Field(None, description="This machine.")
    ssh: Ssh | None = Field(None, description="A machine behind an SSH server.")
    emulator: Emulator | None = Field(None, description="A Raspberry Pi emulated here.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Connect:
        given = [name for name in ("local", "ssh", "emulator") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise PydanticCustomError(
                "connect",
                "give exactly one of local, ssh and emulator, not {found}",
                {"found": found},
            )
        return self


def _runtime(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Device(Strict):
    """A device file."""

    name: Name = Field(description="Also names the device in tables.")
    description: str = Field("", description="Free text.")
    connect: Connect = Field(description="The way to reach the device; exactly one.")
    workdir: str = Field(
        DEFAULT_WORKDIR, description="Folder on the device for models and journals."
    )
    runtime: Literal["venv", "system"] = Field(
        "venv",
        description="venv: edgesparse installs the runtimes in workdir/venv; system: those that "
        "the device's Python has. A local device always uses what its Python has.",
    )
    runtimes: list[
        Annotated[Runtime, BeforeValidator(_runtime, json_schema_input_type=str | Runtime)]
    ] = Field(min_length=1, description="A name, or a mapping with name, version, optional.")
    delegate: Delegate = Field(
        "xnnpack", description="xnnpack, which both runtimes use by default, or none."
    )
    keep_releases: int = Field(
        3, ge=1, le=100, description="Releases of each pipeline that stay on the device."
    )
    threads: list[Annotated[int, Field(ge=1, le=256)]] | None = Field(
        None, min_length=1, description="Instead of the pipeline's benchmark.threads."
    )

    @property
    def builds_venv(self) -> bool:
        """Whether edgesparse installs the runtimes there."""
        return self.runtime == "venv" and self.connect.local is None

    @property
    def clock(self) -> Literal["wall", "instructions"]:
        """What the device's clock counts."""
        emulated = self.connect.emulator
        return "wall" if emulated is None else emulated.clock

    @property
    def emulated(self) -> bool:
        return self.connect.emulator is not None


class Group(Strict):
    """A file in devices/ that stands for several devices."""

    name: Name = Field(description="How the group is called.")
    description: str = Field("", description="Free text.")
    devices: list[Name] = Field(
        min_length=1, max_length=1000, description="Names of device files in the same folder."
    )
