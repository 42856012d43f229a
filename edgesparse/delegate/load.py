"""Loads the delegate into a TFLite runtime whose interface is known."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from importlib import import_module, metadata
from typing import Any

from edgesparse.delegate.build import ARCHITECTURES, library
from edgesparse.spec.errors import UsageError

MODULES = {
    "tflite-runtime": "tflite_runtime.interpreter",
    "ai-edge-litert": "ai_edge_litert.interpreter",
}
TESTED: Mapping[str, tuple[str, ...]] = {
    "tflite-runtime": ("2.11.0", "2.13.0", "2.14.0"),
    "ai-edge-litert": ("1.4.0", "2.0.3", "2.1.0", "2.1.5", "2.1.6", "2.2.0", "2.3.0"),
}
"""Versions with which the delegate was compared; a struct that another one orders in another way
would be read wrongly, and nothing would say so."""


def refused(runtime: str, version: str, machine: str) -> str | None:
    """Why the delegate is not loaded into a runtime on a machine; None where it is.

    Args:
        runtime: tflite-runtime or ai-edge-litert.
        version: of the runtime.
        machine: as platform.machine() has it.
    """
    if machine not in ARCHITECTURES:
        names = " and ".join(ARCHITECTURES)
        return f"delegate edgesparse lacks a library for {machine}; it runs on {names}"
    tested = TESTED.get(runtime, ())
    if version in tested:
        return None
    return (
        f"delegate edgesparse is not tested with {runtime} {version}, only with "
        f"{', '.join(tested) or 'no version'}"
    )


def load(runtime: str = "ai-edge-litert", **options: str | float) -> Any:
    """Load the delegate, for an interpreter's `experimental_delegates`.

    Args:
        runtime: tflite-runtime or ai-edge-litert.
        options: of the delegate: isa, min_zeros, dense, verbose, report; see 'edgesparse docs
            delegate'.

    Raises:
        UsageError: the runtime's version or this machine is unknown, or an option is.
        BuildError: the library is missing and cannot be built.
    """
    if runtime not in MODULES:
        raise UsageError(f"unknown runtime {runtime!r}; choose one of {', '.join(MODULES)}")
    try:
        version = metadata.version(runtime)
    except metadata.PackageNotFoundError:
        raise UsageError(f"{runtime} is not installed: pip install {runtime}") from None
    why = refused(runtime, version, platform.machine())
    if why is None and (sys.platform != "linux" or sys.byteorder != "little"):
        why = f"delegate edgesparse runs on little-endian Linux only, not on {sys.byteorder}-endian"
        why += f" {sys.platform}"
    if why is not None:
        raise UsageError(f"{why}; install what it is tested with, or use xnnpack")
    module = import_module(MODULES[runtime])
    try:
        return module.load_delegate(str(library(platform.machine())), options)
    except ValueError as error:  # How runtimes say that the library did not make a delegate.
        raise UsageError(f"delegate edgesparse cannot be loaded: {error}") from None
