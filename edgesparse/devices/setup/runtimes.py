"""Installs runtimes on a device: a virtual environment from wheels that are chosen on the host."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgesparse.devices.agent.run_job import PROGRAMS, put_programs
from edgesparse.devices.setup import wheels
from edgesparse.devices.transport.interface import DeviceError, Progress, Transport, upload
from edgesparse.devices.transport.platform import Platform, probe
from edgesparse.devices.transport.processes import Channel
from edgesparse.devices.transport.retry import persistent
from edgesparse.spec.device import Device
from edgesparse.spec.safe.files import user_cache
from edgesparse.spec.safe.temporary_folders import temporary_folder
from edgesparse.spec.safe.text import clean, outside_json

INSTALLER = PROGRAMS / "install_wheels.py"
MODULES = {
    "tflite-runtime": "tflite_runtime.interpreter",
    "ai-edge-litert": "ai_edge_litert.interpreter",
}
SETUP_SECONDS = 1800.0
NEEDED_BYTES = 300_000_000
"""Space on the device while the wheels are unpacked."""


@dataclass(frozen=True)
class Provisioned:
    """A device's runtimes. `refused` are those that have no wheels for it, with the reason."""

    platform: Platform
    versions: Mapping[str, str]
    refused: Mapping[str, str]
    changed: bool
    bytes_sent: int = 0


def provision(
    transport: Transport, device: Device, progress: Progress = lambda _, __: None
) -> Provisioned:
    """See to it that the device has its runtimes; afterwards `transport.python` has them.

    Nothing is sent when they are there already.

    Raises:
        DeviceError: no Python, no wheels for it, no room, or a runtime that does not work there.
    """
    platform = probe(transport)
    require_usable(transport, platform)
    # 'install: system' means hands off: its Python is used as it is.
    if not device.builds_venv:
        return Provisioned(platform, {}, {}, False)
    choice = wheels.choose(device.runtimes, platform)
    if not choice.versions:
        reasons = "; ".join(choice.refused.values())
        raise DeviceError(f"device {device.name}: {reasons}")
    link = f"{transport.workdir}/venv"
    # The environment is named by its content: one that exists is the right one.
    changed = not ready(transport, choice, platform)
    sent = _install(transport, device, platform, choice, progress) if changed else 0
    transport.python = f"{link}/bin/python"
    return Provisioned(platform, choice.versions, choice.refused, changed, sent)


def ready(transport: Transport, choice: wheels.Choice, platform: Platform) -> bool:
    """Return whether workdir/venv is a choice's environment; then set `transport.python` to it."""
    path, link = venv_path(transport, choice, platform), f"{transport.workdir}/venv"
    # The link must lead to that environment, not to a partial or an older one.
    test = '[ -x "$1/bin/python" ] && [ "$1" -ef "$2" ]'
    if transport.run(["/bin/sh", "-c", test, "sh", path, link]).returncode:
        return False
    transport.python = f"{link}/bin/python"
    return True


def venv_path(transport: Transport, choice: wheels.Choice, platform: Platform) -> str:
    """Return the path of a choice's environment; workdir/venv links to it."""
    return f"{transport.workdir}/venvs/{wheels.wheel_set(choice, platform)}"


def require_usable(transport: Transport, platform: Platform) -> None:
    """Raise DeviceError for a device that cannot run the agent at all."""
    name = transport.name
    if platform.python is None:
        problem = platform.python_problem
        raise DeviceError(
            f"device {name} has no {transport.python}{': ' + problem if problem else ''}; install "
            "it (sudo apt-get install python3) or set connect.ssh.python"
        )
    if platform.minor < 7:
        raise DeviceError(
            f"device {name} has Python {platform.python}; the agent needs 3.7 or newer: "
            "set connect.ssh.python to one"
        )
    if platform.workdir_error:
        raise DeviceError(
            f"device {name}: cannot write to {transport.workdir}: {platform.workdir_error}; "
            "free space or choose another workdir in the device file"
        )


def _install(
    transport: Transport,
    device: Device,
    platform: Platform,
    choice: wheels.Choice,
    progress: Progress,
) -> int:
    name = device.name
    if platform.implementation != "CPython" or not platform.has_venv:
        raise DeviceError(
            f"device {name}: its Python cannot create virtual environments; install the missing "
            "package (sudo apt-get install python3-venv) or set 'install: system'"
        )
    if platform.noexec:
        raise DeviceError(
            f"device {name}: the file system of {transport.workdir} is mounted noexec, so runtimes "
            "cannot be loaded from it; choose another workdir in the device file"
        )
    if platform.free_bytes is not None and platform.free_bytes < NEEDED_BYTES:
        raise DeviceError(
            f"device {name}: {platform.free_bytes / 1e6:.0f} MB are free at {transport.workdir}, "
            f"the runtimes need {NEEDED_BYTES / 1e6:.0f} MB; free space or choose another workdir"
        )
    progress(0.0, "choosing and downloading wheels")
    files = wheels.download(choice, platform, name, user_cache("wheels"))
    # A folder of this host alone: another one can be setting the device up, too.
    folder = f"{transport.workdir}/wheels/{uuid.uuid4().hex[:16]}"
    (installer,) = put_programs(transport, INSTALLER)
    uploads = [upload(path, f"{folder}/{path.name}") for path in files]
    request = {
        "venv": venv_path(transport, choice, platform),
        "link": f"{transport.workdir}/venv",
        "wheels": [[wheel.target, wheel.sha256] for wheel in uploads],
        "modules": [MODULES[runtime] for runtime in choice.versions],
        "lock": f"{transport.workdir}/lock",
    }
    with temporary_folder() as temporary:
        request_file = Path(temporary, "request.json")
        request_file.write_text(json.dumps(request))
        uploads.append(upload(request_file, f"{folder}/request.json"))
        sent = transport.put_files(uploads, lambda share, text: progress(share / 2, text))

    def install() -> None:
        argv = [transport.python, installer, f"{folder}/request.json"]
        with transport.open(argv) as channel:
            problem = _await_installed(channel, progress)
        if problem is not None:
            raise DeviceError(f"device {transport.name}: {problem}")

    try:
        # After a lost connection an incomplete environment is built again, a complete one found.
        persistent(install, transport.reconnect)
    finally:
        with suppress(DeviceError):
            transport.remove_folder(folder)
    return sent


def _await_installed(channel: Channel, progress: Progress) -> str | None:
    """Follow the installer to its end; returns its error, or None."""
    deadline = time.monotonic() + SETUP_SECONDS
    last = "no output"
    while time.monotonic() < deadline:
        try:
            line = channel.read_line(1.0)
        except EOFError:
            break
        if line is None:
            continue
        last = clean(line.strip(), 300) or last
        message = outside_json(line)
        if not isinstance(message, dict):
            continue
        # The installer's message names the wheel or import that failed.
        if "error" in message:
            return f"set-up failed: {str(message['error'])[:500]}"
        if message.get("done") is True:
            return None
        share = message.get("share")
        if isinstance(share, int | float) and 0 <= share <= 1:
            progress(0.5 + share / 2, str(message.get("text"))[:80])
    return f"set-up did not finish: {last}"
