"""The device file: where models run and with which runtimes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from edgesparse.spec.base import Name, OneOf, Ssh, Strict
from edgesparse.spec.edgetpu import EdgeTpu

RuntimeName = Literal["tflite-runtime", "ai-edge-litert"]
Delegate = Literal["xnnpack", "edgetpu", "none"]
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


class Emulator(Strict):
    """A Raspberry Pi that QEMU emulates on this machine."""

    cpu: Literal["cortex-a76", "cortex-a72", "cortex-a53"] = Field(
        "cortex-a76",
        description="cortex-a76 is a Pi 5's, cortex-a72 a Pi 4's, cortex-a53 a Zero 2's.",
    )
    memory_mib: int = Field(1024, ge=256, le=16384, description="MiB of memory.")
    clock: Literal["instructions", "wall"] = Field(
        "instructions",
        description="instructions: its clock counts executed instructions, 2 ns each, which makes "
        "figures exact and repeatable; wall: time as it passes here.",
    )


class Connect(OneOf):
    """How to reach the device: exactly one of them."""

    local: Local | None = Field(None, description="This machine.")
    ssh: Ssh | None = Field(None, description="A machine behind an SSH server.")
    emulator: Emulator | None = Field(None, description="A Raspberry Pi emulated here.")


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
    install: Literal["venv", "system"] = Field(
        "venv",
        description="venv: edgesparse installs the runtimes in workdir/venv; system: those that "
        "the device's Python has. A local device always uses what its Python has.",
    )
    runtimes: list[
        Annotated[Runtime, BeforeValidator(_runtime, json_schema_input_type=str | Runtime)]
    ] = Field(min_length=1, description="A name, or a mapping with name, version, optional.")
    delegate: Delegate = Field(
        "xnnpack",
        description="xnnpack, which both runtimes use by default; edgetpu, for a Coral; or none.",
    )
    edgetpu: EdgeTpu | None = Field(
        None, description="How models get onto the Edge TPU; only with delegate: edgetpu."
    )
    keep_releases: int = Field(
        3, ge=1, le=100, description="Releases of each pipeline that stay on the device."
    )
    threads: list[Annotated[int, Field(ge=1, le=256)]] | None = Field(
        None, min_length=1, description="Instead of the pipeline's benchmark.threads."
    )

    @model_validator(mode="after")
    def _edgetpu_needs_its_delegate(self) -> Device:
        if self.edgetpu is not None and self.delegate != "edgetpu":
            raise PydanticCustomError(
                "edgetpu", "edgetpu needs 'delegate: edgetpu'; add it, or take edgetpu out"
            )
        return self

    @property
    def tpu(self) -> EdgeTpu | None:
        """How models get onto the device's Edge TPU, if it is to use one."""
        return (self.edgetpu or EdgeTpu()) if self.delegate == "edgetpu" else None

    @property
    def delegate_used(self) -> Delegate:
        """What runs the models: a device with an Edge TPU and no compiler uses its CPU."""
        return "xnnpack" if self.tpu is not None and self.tpu.compiler.none else self.delegate

    @property
    def agent_delegate(self) -> str | dict[str, Any]:
        """What the agent loads: a name, or the library and options of an external delegate."""
        if self.tpu is None or self.delegate_used != "edgetpu":
            return self.delegate_used
        return {"library": self.tpu.library, "options": dict(self.tpu.options)}

    @property
    def cpu_delegate(self) -> str:
        """What the agent loads to run a model on the device's CPU."""
        return "none" if self.delegate == "none" else "xnnpack"

    @property
    def builds_venv(self) -> bool:
        """Whether edgesparse installs the runtimes there."""
        return self.install == "venv" and self.connect.local is None

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
