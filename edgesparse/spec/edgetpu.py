"""The `edgetpu` section of a device file: compiler and library of a Coral Edge TPU."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from edgesparse.spec.base import OneOf, Ssh, Strict

_COMMAND = Field(
    "edgetpu_compiler",
    pattern=r"^[~/A-Za-z0-9._][~/A-Za-z0-9._+-]*$",
    max_length=255,
    description="The compiler's name, or its path.",
)


class LocalCompiler(Strict):
    """Google's edgetpu_compiler on this machine (x86-64 Linux)."""

    command: str = _COMMAND


class SshCompiler(Ssh):
    """Google's edgetpu_compiler on an x86-64 machine behind an SSH server."""

    command: str = _COMMAND


class ContainerCompiler(Strict):
    """Google's edgetpu_compiler in a container image that you built."""

    image: str = Field(
        pattern=r"^[a-z0-9][A-Za-z0-9._/:@-]*$", max_length=255, description="The image."
    )
    engine: Literal["docker", "podman"] = Field("docker", description="Container engine.")
    command: str = _COMMAND


class Precompiled(Strict):
    """Files that you compiled elsewhere; the digest in each name is that of its source."""

    folder: str = Field("edgetpu", min_length=1, description="Folder of these and their sources.")


class NoCompiler(Strict):
    """No compilation: the int8 files run on the device's CPU, with a note in the rows."""


class Compiler(OneOf):
    """The compiler: exactly one of these, or just its name."""

    local: LocalCompiler | None = Field(None, description="edgetpu_compiler on this machine.")
    ssh: SshCompiler | None = Field(None, description="edgetpu_compiler on another machine.")
    container: ContainerCompiler | None = Field(None, description="edgetpu_compiler in an image.")
    precompiled: Precompiled | None = Field(None, description="Files that you compiled elsewhere.")
    none: NoCompiler | None = Field(None, description="No compiler: use the device's CPU.")


def _compiler(value: Any) -> Any:
    return {value: {}} if isinstance(value, str) else value


class EdgeTpu(Strict):
    """Settings of compiling models for the Edge TPU and loading them onto it."""

    compiler: Annotated[
        Compiler, BeforeValidator(_compiler, json_schema_input_type=str | Compiler)
    ] = Field(
        Compiler(local=LocalCompiler()),
        description="local (default), ssh, container, precompiled or none.",
    )
    library: str = Field(
        "libedgetpu.so.1",
        pattern=r"^[/A-Za-z0-9._][/A-Za-z0-9._+-]*$",
        max_length=255,
        description="The Edge TPU's library on the device.",
    )
    options: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=64)],
        Annotated[str, Field(max_length=255)],
    ] = Field({}, description="Options of the library, such as device: usb or pci.")
    min_runtime_version: int | None = Field(
        None, ge=1, le=99, description="Oldest Edge TPU runtime that must run the file (-m)."
    )
    multiple_subgraphs: bool = Field(
        False, description="Map more than the first part (-a); can be ten times slower."
    )
    search_delegate: bool = Field(
        False, description="Look for a part that compiles when the whole does not (-d)."
    )
    timeout_seconds: int = Field(180, ge=1, le=86400, description="For one model (-t).")
