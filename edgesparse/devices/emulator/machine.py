"""Emulated Raspberry Pis: QEMU machines that are real SSH devices."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from edgesparse.devices.emulator import image
from edgesparse.devices.emulator.image import EmulatorError
from edgesparse.devices.transport.ssh import SshTransport
from edgesparse.devices.transport.ssh_errors import login_command
from edgesparse.spec.base import Ssh
from edgesparse.spec.device import Emulator

BOOT_SECONDS = 120.0
PATIENCE = 20.0
"""Seconds here for one second of a clock that counts instructions, at worst."""
OLD_SECONDS = 30 * 86400
_VERSION = 1


@dataclass(frozen=True)
class Machine:
    """An emulated device that is up."""

    name: str
    pid: int
    port: int
    spec: dict[str, object]


def folder() -> Path:
    """Where images and machines are kept: of the user, not of a project."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "edgesparse" / "emulator"


def image_folder(setup: str) -> Path:
    """The image's place; another one for each recipe and each `setup` (what is installed in it)."""
    # The builder's own source is part of the name: whoever changes it gets a new image.
    recipe = hashlib.sha256(Path(image.__file__).read_bytes())
    recipe.update(f"{_VERSION} {setup}".encode())
    return folder() / "images" / recipe.hexdigest()[:16]


@contextmanager
def building(setup: str) -> Iterator[Path | None]:
    """A folder to build an image in, kept when the block ends well; None when there is one already.

    One builder at a time: a second one waits and then finds it built.
    """
    place = image_folder(setup)
    place.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{place}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.is_dir():
            os.utime(place)
            yield None
            return
        _remove_old(place.parent)
        part = Path(f"{place}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            yield part
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        os.rename(part, place)


def _remove_old(images: Path) -> None:
    """Remove images that nobody used for long, and what a kill left of a build."""
    for place in images.iterdir():
        if place.is_dir() and time.time() - place.stat().st_mtime > OLD_SECONDS:
            shutil.rmtree(place, ignore_errors=True)


def machines() -> list[Machine]:
    """Those that are up."""
    found = []
    for path in sorted((folder() / "machines").glob("*.json")):
        machine = running(path.stem)
        if machine is not None:
            found.append(machine)
    return found


def running(name: str) -> Machine | None:
    """The machine of that name, if it is up."""
    path = _state(name)
    try:
        machine = Machine(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    try:
        command = Path(f"/proc/{machine.pid}/cmdline").read_bytes()
    except OSError:
        command = b""
    # Process ids are used again: the command line tells whether it is still ours.
    if f"edgesparse-{name}".encode() in command:
        return machine
    path.unlink(missing_ok=True)
    return None


def up(name: str, spec: Emulator, built: Path) -> Machine:
    """Boot a machine that stays up until `down`. Raises EmulatorError."""
    machine = running(name)
    if machine is not None:
        return machine
    process, port = _boot(name, spec, built, stays=True)
    machine = Machine(name, process.pid, port, asdict_spec(spec))
    path = _state(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(asdict(machine)))
    os.replace(part, path)
    return machine


def down(name: str) -> bool:
    """Shut a machine down; False when it was not up. What was written to its disk is forgotten."""
    machine = running(name)
    if machine is None:
        return False
    # Nothing to be saved: the disk is a snapshot.
    os.kill(machine.pid, signal.SIGKILL)
    _state(name).unlink(missing_ok=True)
    return True


def asdict_spec(spec: Emulator) -> dict[str, object]:
    return dict(spec.model_dump(mode="json"))


class EmulatedTransport(SshTransport):
    """An SSH connection to a machine that is shut down with it, unless it was up before."""

    def __init__(
        self, name: str, spec: Emulator, workdir: str, built: Path, *, keep_disk: bool = False
    ) -> None:
        self._machine: subprocess.Popen[bytes] | None = None
        machine = None if keep_disk else running(name)
        if machine is None:
            self._machine, port = _boot(name, spec, built, stays=False, keep_disk=keep_disk)
        # Figures of another CPU or clock under this name would be lies.
        elif machine.spec != asdict_spec(spec):
            raise EmulatorError(
                f"device {name} is up with other settings than its file has; shut it down with: "
                f"edgesparse emulator down {name}"
            )
        else:
            port = machine.port
        try:
            self.is_ephemeral = self._machine is not None and not keep_disk
            patience = PATIENCE if spec.clock == "instructions" else PATIENCE / 2
            super().__init__(name, _ssh(port, built), workdir, patience)
        except BaseException:
            self._shut_down()
            raise

    def close(self) -> None:
        super().close()
        self._shut_down()

    def _shut_down(self) -> None:
        if self._machine is not None:
            assert self._machine.stdin is not None
            self._machine.stdin.close()
            self._machine.wait()
            self._machine = None


def _state(name: str) -> Path:
    return folder() / "machines" / f"{name}.json"


def _ssh(port: int, built: Path) -> Ssh:
    known = built / f"known_hosts-{port}"
    if not known.exists():
        known.write_text(f"[127.0.0.1]:{port} {(built / 'host_key.pub').read_text()}")
    return Ssh(
        host="127.0.0.1",
        user=image.USER,
        port=port,
        identity_file=str(built / "key"),
        known_hosts=str(known),
        config=os.devnull,
        connect_timeout_seconds=30,
    )


def _boot(
    name: str, spec: Emulator, built: Path, *, stays: bool, keep_disk: bool = False
) -> tuple[subprocess.Popen[bytes], int]:
    """Start QEMU and wait until its SSH server answers; the process and the port here."""
    image.check_tools({tool: image.TOOLS[tool] for tool in ("qemu-system-aarch64", "ssh")})
    # Chosen anew each time: several machines, of several users, may be up.
    port = _free_port()
    log = folder() / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    argv = _qemu(name, spec, built, port, log, keep_disk)
    with log.with_suffix(".qemu.log").open("wb") as errors:
        if stays:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        else:
            # The machine must not outlive us, however we end: our end closes the pipe.
            guard = '"$@" </dev/null & machine=$!; cat >/dev/null; kill -9 $machine; wait'
            process = subprocess.Popen(
                ["/bin/sh", "-c", guard, f"edgesparse-{name}", *argv],
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
    try:
        _await_ssh(name, process, port, log)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return process, port


def _qemu(
    name: str, spec: Emulator, built: Path, port: int, log: Path, keep_disk: bool
) -> list[str]:
    argv = [
        "qemu-system-aarch64",
        *("-name", f"edgesparse-{name}"),
        *("-M", "virt", "-cpu", spec.cpu, "-m", str(spec.memory_mib), "-smp", "1"),
        *("-nographic", "-nodefaults", "-no-reboot", "-serial", f"file:{_escaped(log)}"),
        *("-kernel", str(built / "kernel"), "-initrd", str(built / "initrd")),
        # The same addresses in every run: nothing but the work itself counts.
        *("-append", "console=ttyAMA0 quiet panic=-1 nokaslr norandmaps"),
        "-drive",
        f"if=none,id=disk,format=raw,file={_escaped(built / 'disk.img')},"
        f"snapshot={'off' if keep_disk else 'on'}",
        *("-device", "virtio-blk-pci,drive=disk"),
        # restrict: the guest reaches nothing but us.
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
    ]
    if spec.clock == "instructions":
        # sleep=on: a machine that waits for us or for its disk does so in real time. Otherwise its
        # clock leaps to the next timer, and whatever has a time-out there ends.
        argv += ["-icount", "shift=1,sleep=on"]
    return argv


def _escaped(path: Path) -> str:
    """A path in a QEMU option, where a comma ends the value."""
    return str(path).replace(",", ",,")


def _await_ssh(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EmulatorError(f"device {name}: QEMU ended at once: {_tail(log)}")
        if b"Server listening" in _read(log) and _greets(port):
            return
        time.sleep(0.1)
    raise EmulatorError(f"device {name} did not start in {BOOT_SECONDS:.0f} s: {_tail(log)}")


def _greets(port: int) -> bool:
    """Whether an SSH server answers: QEMU itself accepts connections before there is one."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.settimeout(5)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _tail(log: Path) -> str:
    said = _read(log.with_suffix(".qemu.log")).decode(errors="replace").strip()
    said = said or _read(log).decode(errors="replace").strip() or "no output"
    return re.sub(r"[^\x20-\x7e]", " ", said.splitlines()[-1])[:300]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def describe(machine: Machine) -> str:
    """One line about a machine that is up."""
    spec = machine.spec
    return (
        f"{machine.name}: up, {spec.get('cpu')}, {spec.get('memory_mib')} MiB, "
        f"clock {spec.get('clock')}, port {machine.port}, pid {machine.pid}"
    )


def login(machine: Machine, built: Path) -> str:
    """The command that opens a shell on a machine."""
    return login_command(_ssh(machine.port, built))


def images() -> list[tuple[Path, int]]:
    """Every image's folder, and the bytes it takes."""
    found = []
    for place in sorted((folder() / "images").glob("*")):
        if place.is_dir() and place.suffix != ".part":
            size = sum(path.stat().st_blocks * 512 for path in place.iterdir())
            found.append((place, size))
    return found
