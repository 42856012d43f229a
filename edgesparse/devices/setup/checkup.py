"""Checks a device: what it has, what is missing, and what to type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesparse.delegate import BuildError, library, refused
from edgesparse.devices import edgetpu
from edgesparse.devices.agent.events import Check, Failed, HostInfo
from edgesparse.devices.agent.job import Entry, check_only, new_id
from edgesparse.devices.agent.run_job import host_info, run_job
from edgesparse.devices.setup import wheels
from edgesparse.devices.setup.runtimes import NEEDED_BYTES, ready, require_usable
from edgesparse.devices.transport.interface import DeviceError, Transport
from edgesparse.devices.transport.platform import Platform, probe
from edgesparse.spec.device import Device, EdgeTpu
from edgesparse.spec.safe.temporary_folders import temporary_folder
from edgesparse.tflite.format.minimal_model import tiny_model

OK, NOTE, MISSING = "ok", "note", "MISSING"


@dataclass(frozen=True)
class Finding:
    """A line of a check-up: ok, a note, or MISSING; `todo` is the remedy."""

    subject: str
    state: str
    text: str
    todo: str = ""


def checkup(transport: Transport, device: Device) -> list[Finding]:
    """Check a connected device; changes only files of its workdir."""
    findings = [Finding("connection", OK, _connection_text(device))]
    platform = probe(transport)
    findings += _system(transport, device, platform)
    try:
        require_usable(transport, platform)
    except DeviceError as error:
        return [*findings, Finding("agent", MISSING, str(error))]
    findings += _runtimes(transport, device, platform)
    findings += _surroundings(transport, device, platform)
    return findings


def _connection_text(device: Device) -> str:
    connect = device.connect
    if connect.ssh is not None:
        user = f"{connect.ssh.user}@" if connect.ssh.user else ""
        return f"ssh {user}{connect.ssh.host}, known host key"
    if connect.plugin is not None:
        return f"transport {connect.plugin.name}"
    return "emulated on this machine" if connect.emulator is not None else "this machine"


def _system(transport: Transport, device: Device, platform: Platform) -> list[Finding]:
    glibc = f"glibc {platform.glibc}" if platform.glibc else "no glibc"
    findings = [
        Finding("system", OK, f"{platform.os or platform.kernel}, {platform.machine}, {glibc}")
    ]
    if platform.machine.startswith("arm") and platform.machine != "arm64":
        text = "32-bit system: ai-edge-litert has no wheels for it"
        todo = "write a 64-bit image to the card, such as Raspberry Pi OS (64-bit)"
        findings.append(Finding("32 bits", NOTE, text, todo))
    if platform.python is not None:
        findings.append(Finding("python", OK, f"{transport.python} {platform.python}"))
    free = platform.free_bytes
    if not platform.workdir_error:
        text = f"{transport.workdir}" + (f", {free / 1e9:.1f} GB free" if free is not None else "")
        short = device.builds_venv and free is not None and free < NEEDED_BYTES
        todo = f"the runtimes need {NEEDED_BYTES / 1e6:.0f} MB" if short else ""
        state = NOTE if short else OK
        if device.builds_venv and platform.noexec:
            state, todo = MISSING, "choose another workdir: runtimes cannot be loaded from this one"
            text += ", mounted noexec"
        findings.append(Finding("workdir", state, text, todo))
    if platform.memory_bytes and platform.available_bytes:
        text = f"{platform.available_bytes / 1e6:.0f} of {platform.memory_bytes / 1e6:.0f} MB free"
        findings.append(Finding("memory", OK, text))
    return findings


def _runtimes(transport: Transport, device: Device, platform: Platform) -> list[Finding]:
    findings = []
    refused: dict[str, str] = {}
    if device.builds_venv:
        choice = wheels.choose(device.runtimes, platform)
        refused = choice.refused
        if choice.versions and not ready(transport, choice, platform):
            todo = f"edgesparse device setup {device.name} (or just deploy)"
            names = ", ".join(choice.requirements)
            return [
                Finding("runtimes", MISSING, f"not installed yet: {names}", todo),
                *(Finding(name, MISSING, reason) for name, reason in refused.items()),
            ]
    try:
        host = host_info(transport)
    except DeviceError as error:
        return [Finding("runtimes", MISSING, str(error))]
    for runtime in device.runtimes:
        version = host.runtimes.get(runtime.name)
        if version is None:
            todo = refused.get(runtime.name) or f"on the device: pip install {runtime.name}"
            state = NOTE if runtime.optional else MISSING
            findings.append(Finding(runtime.name, state, "not installed", todo))
        elif runtime.version not in (None, version):
            text = f"{version} is installed, the device file requires {runtime.version}"
            findings.append(Finding(runtime.name, MISSING, text))
        else:
            findings.append(_trial(transport, runtime.name, version))
            if device.loads_edgesparse:
                findings.append(delegate_finding(transport, runtime.name, version, host.machine))
    if host.governor not in (None, "performance"):
        findings.append(_governor(host))
    return findings


def _trial(transport: Transport, runtime: str, version: str) -> Finding:
    event = _tried(transport, runtime, "xnnpack")
    if isinstance(event, Check):
        return Finding(runtime, OK, f"{version}, a trial model ran")
    return Finding(runtime, MISSING, f"{version} does not work: {event.error}")


def delegate_finding(transport: Transport, runtime: str, version: str, machine: str) -> Finding:
    """Load edgesparse's delegate into a runtime on a device: its instruction set, or why not."""
    try:
        why = refused(runtime, version, machine)
        delegate = {} if why else {"library": library(machine), "options": {"verbose": "1"}}
    except BuildError as error:
        why = str(error)
    if why is None:
        event = _tried(transport, runtime, delegate)
        if isinstance(event, Check):
            text = f"edgesparse loads with {runtime}, instruction set {event.kernels or 'unknown'}"
            return Finding("delegate", OK, text)
        why = f"edgesparse does not load with {runtime}: {event.error}"
    return Finding("delegate", NOTE, why, "nothing to do: xnnpack runs all files")


def _tried(transport: Transport, runtime: str, delegate: str | Mapping[str, Any]) -> Check | Failed:
    """Run a minimal model in its own process."""
    with temporary_folder() as folder:
        path = Path(folder, "tiny.tflite")
        path.write_bytes(tiny_model())
        entry = Entry(runtime, path, runtime, delegate, 1)
        for event in run_job(transport, check_only([entry], new_id("check"), 300.0)):
            if isinstance(event, Check | Failed):
                return event
    error = "the trial model did not run"
    return Failed(event="failed", entry=runtime, round=None, error=error)


def _governor(host: HostInfo) -> Finding:
    return Finding(
        "governor",
        NOTE,
        f"CPU governor '{host.governor}' varies the frequency; expect noisy results",
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    )


def _surroundings(transport: Transport, device: Device, platform: Platform) -> list[Finding]:
    if device.connect.emulator is not None and device.clock == "instructions":
        return [Finding("clock", NOTE, "counts executed instructions, 2 ns each, not time")]
    if device.tpu is not None and device.tpu.compiler.none is None:
        return _edgetpu(transport, device, device.tpu, platform)
    return []


def _edgetpu(
    transport: Transport, device: Device, tpu: EdgeTpu, platform: Platform
) -> list[Finding]:
    """Check the chip, its library with the device's first runtime, and the compiler."""
    findings = []
    problem = edgetpu.tpu_problem(device.name, platform)
    if problem is not None:
        findings.append(Finding("edge tpu", MISSING, problem))
    else:
        slow = edgetpu.connection_notes(device.name, tpu, platform)
        text = slow[0] if slow else f"connected by {platform.tpu_bus}"
        findings.append(Finding("edge tpu", NOTE if slow else OK, text))
        runtime = device.runtimes[0].name
        event = _tried(transport, runtime, device.agent_delegate)
        if isinstance(event, Check):
            findings.append(Finding("delegate", OK, f"{tpu.library} loads with {runtime}"))
        else:
            reason = edgetpu.delegate_problem(device.name, tpu.library, event.error) or event.error
            findings.append(Finding("delegate", MISSING, reason))
    findings.append(_compiler(tpu))
    return findings


def _compiler(tpu: EdgeTpu) -> Finding:
    identity = edgetpu.identify(tpu)
    if tpu.compiler.precompiled is not None:
        count = len(identity["files"])
        folder = tpu.compiler.precompiled.folder
        return Finding("compiler", OK, f"none needed: {count} compiled files in {folder}")
    if identity == edgetpu.NO_COMPILER:
        return Finding("compiler", MISSING, "does not run", edgetpu.WHERE_TO_GET_IT)
    return Finding("compiler", OK, f"edgetpu_compiler {identity['version']}")
