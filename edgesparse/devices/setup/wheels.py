"""Wheels for a device's Python, chosen and downloaded here: a device needs no internet.

For the pinned runtimes every package is pinned too, and the sha256 that its wheels may have are in
wheels.json (`make lock` writes it). A wheel that has another one is refused, wherever it is from.
"""

from __future__ import annotations

import fcntl
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
from edgesparse.spec.safe.files import file_digest
from edgesparse.spec.safe.programs import python_module


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
"""The pinned versions, the preferred first; seen in the package index on 2026-11-23."""
_TAGS = ((2, 39), (2, 38), (2, 36), (2, 35), (2, 34), (2, 31), (2, 28), (2, 27), (2, 26), (2, 24))


@dataclass(frozen=True)
class Choice:
    """What to install on a device, and which runtimes cannot be, with the reason."""

    versions: dict[str, str]
    refused: dict[str, str]

    @property
    def requirements(self) -> list[str]:
        return [f"{name}=={version}" for name, version in sorted(self.versions.items())]


def choose(runtimes: Sequence[Runtime], platform: Platform) -> Choice:
    """The version of each runtime that fits the device."""
    versions: dict[str, str] = {}
    refused: dict[str, str] = {}
    for runtime in runtimes:
        # A pinned version is the user's word; whether it fits, pip will say.
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
        hint = f"use {others[0]} there"
    elif platform.machine not in ("aarch64", "x86_64"):
        hint = "install a 64-bit system, or a system-wide runtime and say 'install: system'"
    else:
        hint = "install a newer system, or a system-wide runtime and say 'install: system'"
    return f"{name} has no wheels for {system}; {hint}"


class Lock(TypedDict):
    """Of each pinned runtime all packages that it needs, by Python version; and of each package
    the digests of its wheels."""

    packages: dict[str, dict[str, list[str]]]
    sha256: dict[str, list[str]]


LOCK = Path(__file__).with_name("wheels.json")
_LOCKED = ("aarch64", "x86_64")
"""Machines for which every package has wheels in the index."""


@cache
def lock() -> Lock:
    """The packages and digests that the project fixes."""
    found: Lock = json.loads(LOCK.read_text())
    return found


@dataclass(frozen=True)
class Pins:
    """What pip is asked for; `complete`: these packages, all of them locked, and no others."""

    requirements: tuple[str, ...]
    complete: bool


def pins(choice: Choice, platform: Platform) -> Pins:
    """The packages of a choice, with versions. Of a runtime's version that the user named the index
    says what it needs; numpy's version is fixed all the same."""
    packages, python = lock()["packages"], f"3.{platform.minor}"
    known = [packages.get(name, {}).get(python) for name in choice.requirements]
    if platform.machine in _LOCKED and all(known):
        return Pins(tuple(sorted({name for names in known for name in names or ()})), True)
    return Pins((*choice.requirements, _numpy(platform)), False)


def download(choice: Choice, platform: Platform, name: str, cache: Path) -> list[Path]:
    """The wheels of a choice and all that they need, for the device's platform.

    They are kept in `cache`, so that the next device like it needs no download.

    Raises:
        DeviceError: pip cannot download them, or a wheel, there or in the cache, is not the locked
            one.
    """
    key = wheel_set(choice, platform)
    folder = cache / key
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{key}.lock").open("a") as held:
        # Two devices alike, set up at once: the second waits and finds it done.
        fcntl.flock(held, fcntl.LOCK_EX)
        wanted = pins(choice, platform)
        digests = _kept(folder)
        if digests is None:
            _download(wanted, platform, name, folder)
            digests = _kept(folder) or {}
        _verify(folder, digests, wanted, name)
    if not digests:
        raise DeviceError(f"device {name}: pip downloaded no wheels")
    return [folder / wheel for wheel in digests]


def wheel_set(choice: Choice, platform: Platform) -> str:
    """A name for what a choice installs on such a platform."""
    about = [pins(choice, platform).requirements, platform.minor, platform.machine, _tags(platform)]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def _kept(folder: Path) -> dict[str, str] | None:
    """The names and digests of the wheels of an earlier download, if they are all there."""
    try:
        digests = json.loads((folder / "digests.json").read_text())
    except (OSError, ValueError):
        return None
    return digests if all((folder / name).is_file() for name in digests) else None


def _verify(folder: Path, digests: dict[str, str], wanted: Pins, name: str) -> None:
    """Raise DeviceError for a wheel that was changed since it was downloaded, or is not locked."""
    for wheel, recorded in digests.items():
        digest, why = file_digest(folder / wheel), ""
        package = _package(wheel)
        known = lock()["sha256"].get(package)
        if wanted.complete and package not in wanted.requirements:
            why = "is not among the locked packages"
        elif known is not None and digest not in known:
            why = f"has sha256 {digest}, which is none of those that edgesparse knows of {package}"
        elif digest != recorded:
            why = f"has sha256 {digest}, and had {recorded} when it was downloaded"
        if why:
            raise DeviceError(
                f"device {name}: {wheel} {why}; nothing was installed: remove {folder}, and check "
                "the package index that pip is set to (pip config list)"
            )


def _package(wheel: str) -> str:
    try:
        name, version, *_ = parse_wheel_filename(wheel)
    except InvalidWheelFilename:
        return ""
    return f"{name}=={version}"


def _download(wanted: Pins, platform: Platform, name: str, folder: Path) -> None:
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    abi = f"cp3{platform.minor}"
    argv = python_module("pip", "download", "--quiet", "--disable-pip-version-check")
    # Never a source package: it would be built for this machine, or run code here.
    argv += ["--only-binary=:all:", "--implementation", "cp", "--python-version"]
    argv += [f"3.{platform.minor}", "--abi", abi, "--abi", "abi3", "--abi", "none"]
    argv += ["--abi", f"{abi}m"] if platform.minor < 8 else []
    for tag in _tags(platform):
        argv += ["--platform", tag]
    # pip asks this Python, not the device's, which packages depend on it: the lock knows.
    argv += ["--no-deps"] if wanted.complete else []
    argv += ["--dest", str(part), *wanted.requirements]
    done = subprocess.run(
        argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        said = (lines or done.stderr.strip().splitlines() or ["no output"])[0][:300]
        shutil.rmtree(part)
        raise DeviceError(
            f"device {name}: its wheels cannot be downloaded here: {said} "
            f"({', '.join(wanted.requirements)}, Python 3.{platform.minor}, {platform.machine})"
        )
    digests = {path.name: file_digest(path) for path in sorted(part.glob("*.whl"))}
    (part / "digests.json").write_text(json.dumps(digests, indent=1) + "\n")
    # A damaged earlier download makes way; a whole one is never here.
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(part, folder)


def _numpy(platform: Platform) -> str:
    """The version that the pinned runtimes get: tflite-runtime cannot work with numpy 2, and from
    Python 3.13 on there is only numpy 2."""
    for sets in lock()["packages"].values():
        for package in sets.get(f"3.{platform.minor}", ()):
            if package.startswith("numpy=="):
                return package
    return "numpy>=2"


def _tags(platform: Platform) -> list[str]:
    machine = platform.machine
    own = _numbers(platform.glibc)
    tags = [
        f"manylinux_{major}_{minor}_{machine}" for major, minor in _TAGS if (major, minor) <= own
    ]
    return [*tags, f"manylinux_2_17_{machine}", f"manylinux2014_{machine}"]


def _numbers(version: str | None) -> tuple[int, int]:
    parts = (version or "").split(".")
    if len(parts) < 2 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return (0, 0)
    return int(parts[0]), int(parts[1])
