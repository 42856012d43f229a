"""Wheels for a device's Python, chosen and downloaded on the host: a device needs no internet.

All packages of the pinned runtimes are pinned, too, and wheels.json has the sha256 of their wheels
(`make lock` writes it). A wheel with another digest is refused, wherever it comes from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypedDict

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from edgesparse.devices.transport.interface import DeviceError
from edgesparse.devices.transport.platform import Platform
from edgesparse.spec.device import Runtime
from edgesparse.spec.safe.files import file_digest, locked
from edgesparse.spec.safe.isolated_python import python_module


@dataclass(frozen=True)
class Release:
    """A version of a runtime that has wheels for some Pythons, machines and C libraries."""

    version: str
    minors: tuple[int, ...]
    glibc: dict[str, tuple[int, int]]
    """machine -> oldest glibc"""

    def fits(self, platform: Platform) -> bool:
        oldest = self.glibc.get(platform.machine)
        return (
            oldest is not None
            and platform.minor in self.minors
            and _numbers(platform.glibc) >= oldest
        )


_OLD = {"aarch64": (2, 17), "armv7l": (2, 17), "x86_64": (2, 17)}
RELEASES: dict[str, tuple[Release, ...]] = {
    "tflite-runtime": (
        Release("2.14.0", (9, 10, 11), {"aarch64": (2, 34), "armv7l": (2, 34), "x86_64": (2, 17)}),
        Release("2.13.0", (8, 9, 10), _OLD),
        Release("2.11.0", (7, 8, 9), _OLD),
    ),
    "ai-edge-litert": (
        Release("2.1.6", (10, 11, 12, 13, 14), {"aarch64": (2, 27), "x86_64": (2, 27)}),
        Release("1.4.0", (9, 10, 11, 12), {"aarch64": (2, 17), "x86_64": (2, 17)}),
    ),
}
"""The pinned versions, in order of preference; from the package index on 2026-11-23."""
_TAGS = ((2, 39), (2, 38), (2, 36), (2, 35), (2, 34), (2, 31), (2, 28), (2, 27), (2, 26), (2, 24))


@dataclass(frozen=True)
class Choice:
    """Runtimes to install on a device, by version, and those without wheels, with the reason."""

    versions: dict[str, str]
    refused: dict[str, str]

    @property
    def requirements(self) -> list[str]:
        return [f"{name}=={version}" for name, version in sorted(self.versions.items())]


def choose(runtimes: Sequence[Runtime], platform: Platform) -> Choice:
    """Choose the version of each runtime that fits the device."""
    versions: dict[str, str] = {}
    refused: dict[str, str] = {}
    for runtime in runtimes:
        # The user's choice; pip reports where it does not fit.
        if runtime.version is not None:
            versions[runtime.name] = runtime.version
            continue
        fitting = [r.version for r in RELEASES[runtime.name] if r.fits(platform)]
        if fitting:
            versions[runtime.name] = fitting[0]
        else:
            refused[runtime.name] = _no_wheels(runtime.name, platform)
    return Choice(versions, refused)


def _no_wheels(name: str, platform: Platform) -> str:
    system = f"Python {platform.python}, {platform.machine}, glibc {platform.glibc or 'none'}"
    others = [
        other
        for other, releases in RELEASES.items()
        if other != name and any(r.fits(platform) for r in releases)
    ]
    if others:
        hint = f"use {others[0]} on this device"
    elif platform.machine not in ("aarch64", "x86_64"):
        hint = "install a 64-bit system, or a system-wide runtime and set 'install: system'"
    else:
        hint = "install a newer system, or a system-wide runtime and set 'install: system'"
    return f"{name} has no wheels for {system}; {hint}"


class Lock(TypedDict):
    """All packages of each pinned runtime, by Python version, and the digests of their wheels."""

    packages: dict[str, dict[str, list[str]]]
    sha256: dict[str, list[str]]


LOCK = Path(__file__).with_name("wheels.json")
_LOCKED = ("aarch64", "x86_64")
"""Machines for which every package has wheels in the index."""


@cache
def lock() -> Lock:
    """Read the packages and digests that the project pins."""
    content: Lock = json.loads(LOCK.read_text())
    return content


@dataclass(frozen=True)
class Pins:
    """Requirements for pip; `complete` where all packages are locked and no others are needed."""

    requirements: tuple[str, ...]
    complete: bool


def pins(choice: Choice, platform: Platform) -> Pins:
    """Return the packages of a choice with versions. For a version that the user chose, the index
    determines the dependencies except NumPy's version."""
    packages, python = lock()["packages"], f"3.{platform.minor}"
    locked = [packages.get(name, {}).get(python) for name in choice.requirements]
    if platform.machine in _LOCKED and all(locked):
        return Pins(tuple(sorted({name for names in locked for name in names or ()})), True)
    return Pins((*choice.requirements, _numpy(platform)), False)


def download(choice: Choice, platform: Platform, name: str, cache: Path) -> list[Path]:
    """Download the wheels of a choice and its dependencies for the device's platform.

    They are kept in `cache` for other devices of the platform.

    Raises:
        DeviceError: pip cannot download them, or a wheel, in the index or the cache, is not the
            locked one.
    """
    key = wheel_set(choice, platform)
    folder = cache / key
    with locked(cache / f"{key}.lock"):
        pinned = pins(choice, platform)
        digests = _kept(folder)
        if digests is None:
            _download(pinned, platform, name, folder)
            digests = _kept(folder) or {}
        _verify(folder, digests, pinned, name)
    if not digests:
        raise DeviceError(f"device {name}: pip downloaded no wheels")
    return [folder / wheel for wheel in digests]


def wheel_set(choice: Choice, platform: Platform) -> str:
    """Return the name of a choice's packages on a platform."""
    about = [pins(choice, platform).requirements, platform.minor, platform.machine, _tags(platform)]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _kept(folder: Path) -> dict[str, str] | None:
    """Return the names and digests of an earlier download's wheels, if it is complete."""
    try:
        digests = json.loads((folder / "digests.json").read_text())
    except (OSError, ValueError):
        return None
    return digests if all((folder / name).is_file() for name in digests) else None


def _verify(folder: Path, digests: dict[str, str], pinned: Pins, name: str) -> None:
    """Raise DeviceError for a wheel that was changed after its download, or is not locked."""
    for wheel, recorded in digests.items():
        digest, problem = file_digest(folder / wheel), ""
        package = _package(wheel)
        allowed = lock()["sha256"].get(package)
        if pinned.complete and package not in pinned.requirements:
            problem = "is not among the locked packages"
        elif allowed is not None and digest not in allowed:
            problem = f"has sha256 {digest}, which is not in the lock of {package}"
        elif digest != recorded:
            problem = f"has sha256 {digest}, but had {recorded} when it was downloaded"
        if problem:
            raise DeviceError(
                f"device {name}: {wheel} {problem}; nothing was installed; remove {folder}, and "
                "check the package index of pip (pip config list)"
            )


def _package(wheel: str) -> str:
    try:
        name, version, *_ = parse_wheel_filename(wheel)
    except InvalidWheelFilename:
        return ""
    return f"{name}=={version}"


def _download(pinned: Pins, platform: Platform, name: str, folder: Path) -> None:
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    abi = f"cp3{platform.minor}"
    argv = python_module("pip", "download", "--quiet", "--disable-pip-version-check")
    # Never a source package: it would be built for this machine, and run code on it.
    argv += ["--only-binary=:all:", "--implementation", "cp", "--python-version"]
    argv += [f"3.{platform.minor}", "--abi", abi, "--abi", "abi3", "--abi", "none"]
    argv += ["--abi", f"{abi}m"] if platform.minor < 8 else []
    for tag in _tags(platform):
        argv += ["--platform", tag]
    # pip evaluates dependencies for this Python, not the device's: the lock has the right ones.
    argv += ["--no-deps"] if pinned.complete else []
    argv += ["--dest", str(part), *pinned.requirements]
    done = subprocess.run(
        argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (lines or done.stderr.strip().splitlines() or ["no output"])[0][:300]
        shutil.rmtree(part)
        raise DeviceError(
            f"device {name}: cannot download its wheels: {reason} "
            f"({', '.join(pinned.requirements)}, Python 3.{platform.minor}, {platform.machine})"
        )
    digests = {path.name: file_digest(path) for path in sorted(part.glob("*.whl"))}
    (part / "digests.json").write_text(json.dumps(digests, indent=1) + "\n")
    # Only a damaged earlier download can be here.
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(part, folder)


def _numpy(platform: Platform) -> str:
    """Return the NumPy version of the pinned runtimes: tflite-runtime does not support NumPy 2, and
    Python 3.13 has no other."""
    for sets in lock()["packages"].values():
        for package in sets.get(f"3.{platform.minor}", ()):
            if package.startswith("numpy=="):
                return package
    return "numpy>=2"


def _tags(platform: Platform) -> list[str]:
    machine = platform.machine
    glibc = _numbers(platform.glibc)
    tags = [
        f"manylinux_{major}_{minor}_{machine}" for major, minor in _TAGS if (major, minor) <= glibc
    ]
    return [*tags, f"manylinux_2_17_{machine}", f"manylinux2014_{machine}"]


def _numbers(version: str | None) -> tuple[int, int]:
    parts = (version or "").split(".")
    if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return (0, 0)
    return int(parts[0]), int(parts[1])
