"""The device file: where models run and with which runtimes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from edgesparse.spec.base import Name, Strict

RuntimeName = Literal["tflite-runtime", "ai-edge-litert"]
Delegate = Literal["xnnpack", "none"]


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


class Connect(Strict):
    """How to reach the device."""

    local: Local = Field(description="This machine.")


def _runtime(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Device(Strict):
    """A device file."""

    name: Name = Field(description="Also names the device in tables.")
    description: str = Field("", description="Free text.")
    connect: Connect = Field(description="The way to reach the device; exactly one.")
    workdir: str = Field(
        "~/.cache/edgesparse", description="Folder on the device for models and journals."
    )
    runtimes: list[
        Annotated[Runtime, BeforeValidator(_runtime, json_schema_input_type=str | Runtime)]
    ] = Field(min_length=1, description="A name, or a mapping with name, version, optional.")
    delegate: Delegate = Field(
        "xnnpack", description="xnnpack, which both runtimes use by default, or none."
    )
    threads: list[Annotated[int, Field(ge=1, le=256)]] | None = Field(
        None, min_length=1, description="Instead of the pipeline's benchmark.threads."
    )
