"""Edge TPUs on devices, and the machines that compile for them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesparse.devices.transport.interface import DeviceError, Transport, upload
from edgesparse.devices.transport.local import LocalTransport
from edgesparse.devices.transport.platform import Platform
from edgesparse.devices.transport.ssh import SshTransport
from edgesparse.devices.transport.workdir import claim
from edgesparse.spec.device import DEFAULT_WORKDIR, ContainerCompiler, EdgeTpu, Local
from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.safe.temporary_folders import temporary_folder
from edgesparse.tflite.edgetpu import (
    CompilerLog,
    arguments,
    compiler_version,
    failure,
    notes,
    parse_log,
    require_compiled,
)

WHERE_TO_GET_IT = (
    "install edgetpu_compiler from Google's coral apt source (x86-64 Linux only), or choose "
    "another edgetpu.compiler in the device file: ssh, container, precompiled or none"
)
_IDENTIFY = """
found=$(command -v "$1") || { echo "$1: not found" >&2; exit 127; }
if command -v sha256sum >/dev/null; then sha256sum < "$found"; else shasum -a 256 < "$found"; fi
exec "$1" --version
"""
NO_COMPILER = {"version": None}
USB3_MBIT_PER_SECOND = 5000
_SEARCH_TAKES = 20
"""How many times longer the compiler's search for a partition (-d) can take than one run."""


@dataclass(frozen=True)
class Compiled:
    """A file for the Edge TPU with the log of its compiler."""

    content: bytes
    log: CompilerLog
    log_text: str


def tpu_problem(device: str, platform: Platform) -> str | None:
    """Return why a device's Edge TPU cannot be used, by its Platform; None where it can."""
    if platform.tpu_bus is None:
        return (
            f"device {device}: no Edge TPU on its USB or PCIe bus; plug it in (on a "
            "Pi 5 into a blue USB 3 port), or compare models on the CPU with "
            "'edgetpu: {compiler: none}'"
        )
    if platform.tpu_usable:
        return None
    group = "plugdev" if platform.tpu_bus == "usb" else "apex"
    if group not in platform.groups:
        return (
            f"device {device}: user {platform.user} has no permission for the Edge TPU; run "
            f"on the device: sudo usermod -aG {group} {platform.user}, then log out and plug it in "
            "again"
        )
    return (
        f"device {device}: user {platform.user} is in group {group} but has no permission for the "
        "Edge TPU; install its udev rules on the device (sudo apt-get install libedgetpu1-std) and "
        "plug it in again"
    )


def delegate_problem(device: str, library: str, error: str) -> str | None:
    """Explain a failed load of the Edge TPU's library; None for another error."""
    if "cannot open shared object file" in error:
        return (
            f"device {device}: {library} is not installed; install it on the device "
            "(sudo apt-get install libedgetpu1-std), or set edgetpu.library"
        )
    if "Failed to load delegate" in error or "tflite_plugin_create_delegate" in error:
        return (
            f"device {device}: {library} cannot open the Edge TPU: stop other programs that use "
            f"it, plug it in again, and check that the library fits the runtime ({error[:200]})"
        )
    return None


def identify(tpu: EdgeTpu) -> dict[str, Any]:
    """Return the compiler's version and digest, or the digests of precompiled files.

    NO_COMPILER where it does not run, which is an error only when it is needed.
    """
    way = tpu.compiler
    if way.none is not None:
        return {}
    if way.precompiled is not None:
        files = sorted(_folder(tpu).glob("*_edgetpu.tflite"))
        return {"files": {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}}
    try:
        with _build_host(tpu) as (host, prefix, command):
            return _identity(host, prefix, command)
    except EdgesparseError:
        return dict(NO_COMPILER)


def compile_model(tpu: EdgeTpu, source: Path, variant: str) -> Compiled:
    """Compile a full-int8 .tflite file, or find the precompiled one.

    Raises:
        EdgesparseError: the compiler is missing or refuses the model, no operator is mapped to the
            Edge TPU, or the precompiled file is missing or outdated.
    """
    if tpu.compiler.precompiled is not None:
        return _precompiled(tpu, source, variant)
    content, text = _compile(tpu, source, variant)
    log = parse_log(text)
    if log.mapped == 0:
        reasons = "; ".join(f"{op.name}: {op.status}" for op in log.operators[:8])
        raise EdgesparseError(
            f"no operator of {variant} runs on the Edge TPU{': ' + reasons if reasons else ''}"
        )
    require_compiled(content, source.read_bytes(), f"{variant}, compiled")
    return Compiled(content, log, text)


def describe(compiled: Compiled) -> list[str]:
    """Return notes for the table."""
    return notes(compiled.log)


@contextmanager
def _build_host(tpu: EdgeTpu) -> Iterator[tuple[Transport, list[str], str]]:
    """Yield the machine that compiles, the prefix of commands on it, and the compiler's name."""
    way = tpu.compiler
    if way.ssh is not None:
        transport = SshTransport("edgetpu.compiler", way.ssh, DEFAULT_WORKDIR)
        try:
            claim(transport)
            yield transport, [], way.ssh.command
        finally:
            transport.close()
        return
    with temporary_folder() as folder:
        here = LocalTransport("edgetpu.compiler", Local(python=None), str(folder))
        if way.container is not None:
            yield here, _container(way.container, str(folder)), way.container.command
        else:
            assert way.local is not None
            yield here, [], str(Path(way.local.command).expanduser())


def _container(spec: ContainerCompiler, folder: str) -> list[str]:
    user = f"{os.getuid()}:{os.getgid()}"
    user_options = ["--userns=keep-id"] if spec.engine == "podman" else ["--user", user]
    shared = ["--network=none", "--volume", f"{folder}:{folder}", "--workdir", folder]
    return [spec.engine, "run", "--rm", *user_options, *shared, "--entrypoint", "", spec.image]


def _identity(host: Transport, prefix: list[str], command: str) -> dict[str, Any]:
    done = host.run([*prefix, "/bin/sh", "-c", _IDENTIFY, "sh", command], timeout_seconds=120)
    version = compiler_version(done.stdout)
    if done.returncode or version is None:
        raise EdgesparseError(f"{command} does not run: {done.last_line}; {WHERE_TO_GET_IT}")
    return {"version": version, "sha256": done.stdout.split()[0][:64]}


def _compile(tpu: EdgeTpu, source: Path, variant: str) -> tuple[bytes, str]:
    limit_seconds = 60.0 + tpu.timeout_seconds * (_SEARCH_TAKES if tpu.search_delegate else 1)
    with _build_host(tpu) as (host, prefix, command):
        _identity(host, prefix, command)
        sent = upload(source, "")
        folder = f"{host.workdir}/compile-{sent.sha256[:16]}-{os.getpid()}"
        try:
            host.put_files([upload(source, f"{folder}/{variant}.tflite")])
            command_arguments = arguments(tpu, f"{folder}/{variant}.tflite", folder)
            done = host.run([*prefix, command, *command_arguments], timeout_seconds=limit_seconds)
            if done.returncode:
                output = f"{done.stdout}\n{done.stderr}"
                raise EdgesparseError(f"{command} refuses {variant}: {failure(output)}")
            with temporary_folder() as temporary:
                target = Path(temporary, "compiled.tflite")
                host.get_file(f"{folder}/{variant}_edgetpu.tflite", target)
                return target.read_bytes(), done.stdout
        finally:
            host.remove_folder(folder)


def _folder(tpu: EdgeTpu) -> Path:
    assert tpu.compiler.precompiled is not None
    return Path(tpu.compiler.precompiled.folder).expanduser()


def _precompiled(tpu: EdgeTpu, source: Path, variant: str) -> Compiled:
    """Find the file that was compiled from exactly this source; else put the source into the
    folder."""
    folder = _folder(tpu)
    content = source.read_bytes()
    stem = f"{variant}-{hashlib.sha256(content).hexdigest()[:12]}"
    compiled_path = folder / f"{stem}_edgetpu.tflite"
    if not compiled_path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.tflite").write_bytes(content)
        stale = sorted(p.name for p in folder.glob(f"{variant}-*_edgetpu.tflite"))
        reason = f"{stale[-1]} is of another version of the model" if stale else "missing"
        how = " ".join(["edgetpu_compiler", *arguments(tpu, f"{stem}.tflite", ".")])
        raise EdgesparseError(
            f"{compiled_path}: {reason}; run in that folder, on a machine with the compiler: "
            f"{how}; then deploy again"
        )
    require_compiled(compiled_path.read_bytes(), content, str(compiled_path))
    log_path = compiled_path.with_suffix(".log")
    text = log_path.read_text(errors="replace") if log_path.is_file() else ""
    return Compiled(compiled_path.read_bytes(), parse_log(text), text)


def require_tpu(device: str, tpu: EdgeTpu, platform: Platform) -> None:
    """Raise DeviceError where a device lacks the Edge TPU that its file requires."""
    problem = tpu_problem(device, platform)
    if problem is not None and tpu.compiler.none is None:
        raise DeviceError(problem)


def connection_notes(device: str, tpu: EdgeTpu, platform: Platform) -> list[str]:
    """Return notes on a slow or unused Edge TPU."""
    if tpu.compiler.none is not None:
        return [f"{device}: rows are measured on the CPU, since edgetpu.compiler is none"]
    speed = platform.tpu_mbit_per_second
    if speed is not None and speed < USB3_MBIT_PER_SECOND:
        return [
            f"{device}: the Edge TPU is connected with {speed} Mbit/s (USB 2); a blue USB 3 port "
            "is several times faster"
        ]
    return []
