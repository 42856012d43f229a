"""The device file: a machine that runs models, its runtimes, and the compiler of its Edge TPU."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.base import Name, OneOf, Ssh, Strict
from edgesparse.spec.errors import UsageError

RuntimeName = Literal["tflite-runtime", "ai-edge-litert"]
Delegate = Literal["auto", "xnnpack", "edgesparse", "edgetpu", "none"]
DEFAULT_WORKDIR = "~/.cache/edgesparse"


class Runtime(Strict):
    """A TFLite runtime on the device."""

    name: RuntimeName = Field(description="The distribution's name.")
    version: str | None = Field(
        None,
        pattern=r"^[0-9][0-9A-Za-z.+-]*$",
        description="Install this version, and fail where another is installed (system, local); "
        "default: the newest known to work there.",
    )
    optional: bool = Field(
        False,
        description="Skip it, with a note, where it has no wheels or is not installed.",
    )


class Local(Strict):
    """This machine, without SSH."""

    python: str | None = Field(
        None,
        description="Python that has the runtimes and numpy; default: the one that runs "
        "edgesparse.",
    )


class Emulator(Strict):
    """A Raspberry Pi that QEMU emulates on this machine."""

    cpu: Literal["cortex-a76", "cortex-a72", "cortex-a53"] = Field(
        "cortex-a76",
        description="cortex-a76 is a Pi 5's, cortex-a72 a Pi 4's, cortex-a53 a Zero 2's.",
    )
    memory_mib: int = Field(1024, ge=256, le=16384, description="MiB of memory.")
    clock: Literal["instructions", "wall"] = Field(
        "instructions",
        description="instructions: its clock counts executed instructions, 2 ns each, so that "
        "measurements are exact and repeatable; wall: this machine's time.",
    )


class Plugin(Strict):
    """A transport of an installed package, by its entry point in edgesparse.transports."""

    name: Name = Field(description="Name of the entry point.")
    args: dict[str, Any] = Field({}, description="Keyword arguments of its function.")


class Connect(OneOf):
    """Connection to the device: exactly one of these."""

    local: Local | None = Field(None, description="This machine.")
    ssh: Ssh | None = Field(None, description="A machine behind an SSH server.")
    emulator: Emulator | None = Field(None, description="A Raspberry Pi emulated here.")
    plugin: Plugin | None = Field(None, description="A transport of an installed package.")


def _runtime(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


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


class Device(Strict):
    """A device file."""

    _address: str | None = PrivateAttr(None)

    name: Name = Field(
        description="Lower-case letters, digits, '.', '_' and '-'; also names the device in tables."
    )
    description: str = Field("", description="Free text.")
    connect: Connect = Field(description="Connection to the device; exactly one.")
    workdir: str = Field(
        DEFAULT_WORKDIR,
        description="Folder on the device for runtimes, models, journals and releases: one that is "
        "empty, does not exist, or is edgesparse's already.",
    )
    install: Literal["venv", "system"] = Field(
        "venv",
        description="venv: edgesparse installs the runtimes in workdir/venv; system: use those of "
        "the device's Python, such as Coral's apt package. A local device always uses those of its "
        "Python.",
    )
    runtimes: list[
        Annotated[Runtime, BeforeValidator(_runtime, json_schema_input_type=str | Runtime)]
    ] = Field(min_length=1, description="A name, or a mapping with name, version, optional.")
    delegate: Delegate = Field(
        "auto",
        description="auto: edgesparse for int8 files with blocks of zeros, xnnpack for others; "
        "xnnpack, the default of both runtimes; edgesparse, for every int8 file; edgetpu, for a "
        "Coral; or none.",
    )
    edgetpu: EdgeTpu | None = Field(
        None, description="Compiler and library of the Edge TPU; only with delegate: edgetpu."
    )
    keep_releases: int = Field(
        3, ge=1, le=100, description="Good releases of each pipeline that stay on the device."
    )
    threads: list[Annotated[int, Field(ge=1, le=256)]] | None = Field(
        None, min_length=1, description="Instead of the pipeline's benchmark.threads."
    )

    @model_validator(mode="after")
    def _edgetpu_needs_its_delegate(self) -> Device:
        if self.edgetpu is not None and self.delegate != "edgetpu":
            raise PydanticCustomError(
                "edgetpu", "'edgetpu' requires 'delegate: edgetpu'; add that, or remove 'edgetpu'"
            )
        return self

    @property
    def option(self) -> str:
        """Value of --device: its name, or its address where it has no file."""
        return self._address or self.name

    @property
    def tpu(self) -> EdgeTpu | None:
        """Settings of the device's Edge TPU; None where it has none."""
        return (self.edgetpu or EdgeTpu()) if self.delegate == "edgetpu" else None

    @property
    def delegate_used(self) -> Delegate:
        """Delegate that runs the models for which edgesparse's is not chosen: a device with an Edge
        TPU but no compiler uses its CPU."""
        on_cpu = self.loads_edgesparse or (self.tpu is not None and self.tpu.compiler.none)
        return "xnnpack" if on_cpu else self.delegate

    @property
    def loads_edgesparse(self) -> bool:
        """True where edgesparse's delegate runs int8 files, those with blocks of zeros or all."""
        return self.delegate in ("auto", "edgesparse")

    @property
    def agent_delegate(self) -> str | dict[str, Any]:
        """Delegate for the agent: a name, or library and options of an external one."""
        if self.tpu is None or self.delegate_used != "edgetpu":
            return self.delegate_used
        return {"library": self.tpu.library, "options": dict(self.tpu.options)}

    @property
    def cpu_delegate(self) -> str:
        """Delegate for the agent that runs a model on the device's CPU."""
        return "none" if self.delegate == "none" else "xnnpack"

    @property
    def builds_venv(self) -> bool:
        """True where edgesparse installs the runtimes on the device."""
        return self.install == "venv" and self.connect.local is None

    @property
    def clock(self) -> Literal["wall", "instructions"]:
        """Unit of the device's clock: instructions only on an emulated one."""
        emulated = self.connect.emulator
        return "wall" if emulated is None else emulated.clock

    @property
    def emulated(self) -> bool:
        return self.connect.emulator is not None


class Group(Strict):
    """A file in devices/ that lists several devices."""

    name: Name = Field(description="Name of the group.")
    description: str = Field("", description="Free text.")
    devices: list[Name] = Field(
        min_length=1, max_length=1000, description="Names of device files in the same folder."
    )


_ADDRESS = re.compile(r"(?P<user>[^@]+)@(?P<host>\[[^\]]+\]|[^:@]+)(:(?P<port>[0-9]+))?")


def device_at(address: str) -> Device:
    """Return the device behind an address, USER@HOST or USER@HOST:PORT, without a device file: both
    runtimes, of which tflite-runtime is optional.

    Raises:
        UsageError: the address is invalid.
    """
    match = _ADDRESS.fullmatch(address)
    invalid = UsageError(f"invalid address {address!r}; write USER@HOST or USER@HOST:PORT")
    if match is None:
        raise invalid
    host = match["host"].strip("[]")
    ssh = {
        "host": host,
        "user": match["user"],
        **({"port": match["port"]} if match["port"] else {}),
    }
    name = re.sub(r"[^a-z0-9._-]", "-", host.lower().removesuffix(".local")).strip("._-")
    runtimes = [{"name": "ai-edge-litert"}, {"name": "tflite-runtime", "optional": True}]
    try:
        device = Device.model_validate(
            {"name": name[:64], "connect": {"ssh": ssh}, "runtimes": runtimes}
        )
    except ValidationError:
        raise invalid from None
    device._address = address
    return device
