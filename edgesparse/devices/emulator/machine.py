"""Emulated Raspberry Pis: QEMU machines that are reached over SSH."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from edgesparse.devices.emulator import image
from edgesparse.devices.emulator.image import EmulatorError
from edgesparse.devices.transport.ssh import SshTransport
from edgesparse.devices.transport.ssh_errors import login_command
from edgesparse.spec.base import Ssh
from edgesparse.spec.device import Emulator
from edgesparse.spec.safe.files import locked, user_cache

SILENT_CPU_SECONDS = 200.0
"""Computing time of a machine without a new line on its console after which its boot has failed. On
a busy host that takes many times longer, and the boot goes on."""
SILENT_SECONDS = 600.0
"""The same in seconds in which the machine neither computes nor waits for a CPU."""
SLOWDOWN = 20.0
"""Seconds of this machine per second of a clock that counts instructions, at worst."""
OLD_SECONDS = 30 * 86400
_IMAGE_NAME = re.compile(r"[0-9a-f]{16}(\.part|\.downloads)?")
_VERSION = 1
Show = Callable[[int, str], None]


def show_nothing(_: int, __: str) -> None:
    """Ignore a step of a boot."""


@dataclass(frozen=True)
class Machine:
    """A running emulated device."""

    name: str
    pid: int
    port: int
    spec: dict[str, object]


def folder() -> Path:
    """Return the folder of images and machines, which all of the user's projects share."""
    return user_cache("emulator")


def image_folder(setup: str) -> Path:
    """Return an image's folder, by its recipe and its `setup` (what is installed in it)."""
    # The builder's source is part of the name: a change of it builds a new image.
    recipe = hashlib.sha256(Path(image.__file__).read_bytes())
    recipe.update(f"{_VERSION} {setup}".encode())
    return folder() / "images" / recipe.hexdigest()[:16]


def downloads_folder(setup: str) -> Path:
    """Return the folder for the downloads of an image, which outlasts an interrupted build."""
    return Path(f"{image_folder(setup)}.downloads")


@contextmanager
def building(setup: str) -> Iterator[Path | None]:
    """Yield a folder to build an image in, kept if the block succeeds; None if the image exists.

    A second builder waits, and then uses the image of the first.
    """
    image_path = image_folder(setup)
    with locked(Path(f"{image_path}.lock")):
        if image_path.is_dir():
            os.utime(image_path)
            yield None
            return
        _remove_old(image_path.parent)
        part = Path(f"{image_path}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            yield part
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        os.rename(part, image_path)


def _remove_old(images: Path) -> None:
    """Remove images that were not used for 30 days, and parts of killed builds; nothing else."""
    for path in images.iterdir():
        ours = _IMAGE_NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        if ours and time.time() - path.stat().st_mtime > OLD_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def machines() -> list[Machine]:
    """Return the running machines."""
    machines_up = []
    for path in sorted((folder() / "machines").glob("*.json")):
        machine = running(path.stem)
        if machine is not None:
            machines_up.append(machine)
    return machines_up


def running(name: str) -> Machine | None:
    """Return the machine of that name, or None if it is not running."""
    path = _state(name)
    try:
        machine = Machine(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    try:
        command = Path(f"/proc/{machine.pid}/cmdline").read_bytes()
    except OSError:
        command = b""
    # Process ids are reused: the command line identifies the machine.
    if f"edgesparse-{name}".encode() in command:
        return machine
    path.unlink(missing_ok=True)
    return None


def up(name: str, spec: Emulator, built: Path, show: Show = show_nothing) -> Machine:
    """Boot a machine that stays up until `down`; `show` gets its steps. Raises EmulatorError."""
    machine = running(name)
    if machine is not None:
        return machine
    process, port = _boot(name, spec, built, stays=True, show=show)
    machine = Machine(name, process.pid, port, asdict_spec(spec))
    path = _state(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(asdict(machine)))
    os.replace(part, path)
    return machine


def down(name: str) -> bool:
    """Shut a machine down; False when it was not running. Changes to its disk are lost."""
    machine = running(name)
    if machine is None:
        return False
    # There is nothing to save: the disk is a snapshot.
    os.kill(machine.pid, signal.SIGKILL)
    _state(name).unlink(missing_ok=True)
    return True


def asdict_spec(spec: Emulator) -> dict[str, object]:
    return dict(spec.model_dump(mode="json"))


class EmulatedTransport(SshTransport):
    """An SSH connection to a machine that it boots and shuts down, unless it was running before."""

    def __init__(
        self,
        name: str,
        spec: Emulator,
        workdir: str,
        built: Path,
        *,
        keep_disk: bool = False,
        show: Show = show_nothing,
    ) -> None:
        """
        Args:
            built: the image's folder.
            keep_disk: whether changes to the disk go to the image.
            show: called with each step of the boot and its number.
        """
        self._machine: subprocess.Popen[bytes] | None = None
        machine = None if keep_disk else running(name)
        if machine is None:
            self._machine, port = _boot(
                name, spec, built, stays=False, keep_disk=keep_disk, show=show
            )
        # Measurements with another CPU or clock must not appear under this name.
        elif machine.spec != asdict_spec(spec):
            raise EmulatorError(
                f"device {name} is running with other settings than those of its file; shut it "
                f"down with: edgesparse emulator down {name}"
            )
        else:
            port = machine.port
        try:
            self.is_ephemeral = self._machine is not None and not keep_disk
            slowdown = SLOWDOWN if spec.clock == "instructions" else SLOWDOWN / 2
            super().__init__(name, _ssh(port, built), workdir, slowdown)
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
    known_hosts = built / f"known_hosts-{port}"
    if not known_hosts.exists():
        known_hosts.write_text(f"[127.0.0.1]:{port} {(built / 'host_key.pub').read_text()}")
    return Ssh(
        host="127.0.0.1",
        user=image.USER,
        port=port,
        identity_file=str(built / "key"),
        known_hosts=str(known_hosts),
        config=os.devnull,
        connect_timeout_seconds=30,
    )


def _boot(
    name: str,
    spec: Emulator,
    built: Path,
    *,
    stays: bool,
    keep_disk: bool = False,
    show: Show = show_nothing,
) -> tuple[subprocess.Popen[bytes], int]:
    """Start QEMU and wait until its SSH server answers; returns the process and the local port."""
    image.check_tools({tool: image.TOOLS[tool] for tool in ("qemu-system-aarch64", "ssh")})
    # A free port: machines of several users can be running.
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
            # The machine must not outlive this process, however it ends: its end closes the pipe.
            guard = '"$@" </dev/null & machine=$!; cat >/dev/null; kill -9 $machine; wait'
            process = subprocess.Popen(
                ["/bin/sh", "-c", guard, f"edgesparse-{name}", *argv],
                stdin=subprocess.PIPE,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
    try:
        _await_ssh(name, process, port, log, show)
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
        # The same addresses in every run, so that the number of instructions is repeatable.
        *("-append", "console=ttyAMA0 quiet panic=-1 nokaslr norandmaps"),
        "-drive",
        f"if=none,id=disk,format=raw,file={_escaped(built / 'disk.img')},"
        f"snapshot={'off' if keep_disk else 'on'}",
        *("-device", "virtio-blk-pci,drive=disk"),
        # restrict: the guest reaches no network but this port.
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
    ]
    if spec.clock == "instructions":
        # sleep=on: a machine that waits for the host or its disk does so in real time. Otherwise
        # its clock jumps to the next timer, and time-outs on it expire.
        argv += ["-icount", "shift=1,sleep=on"]
    return argv


def _escaped(path: Path) -> str:
    """Escape a path for a QEMU option, where a comma ends the value."""
    return str(path).replace(",", ",,")


def _await_ssh(
    name: str, process: subprocess.Popen[bytes], port: int, log: Path, show: Show
) -> None:
    """Wait for the SSH server while the boot goes on; `show` can raise to end the wait."""
    size, since, before, number, step = -1, 0.0, (0.0, 0.0), 0, "booting"
    while process.poll() is None:
        console, now, used = _read(log), time.monotonic(), _cpu_seconds(process.pid)
        if b"Server listening" in console and _greets(port):
            return
        computed, waited = (after - start for after, start in zip(used, before, strict=True))
        if len(console) != size:
            size, since, before = len(console), now, used
            steps = [line for line in console.decode(errors="replace").splitlines()
                     if line.startswith(image.STEP)]  # fmt: skip
            if steps:
                number, step = len(steps), steps[-1].removeprefix(image.STEP).strip()
        elif computed > SILENT_CPU_SECONDS or now - since - computed - waited > SILENT_SECONDS:
            raise EmulatorError(
                f"device {name}: the boot stopped: no output for {now - since:.0f} s, of which it "
                f"computed {computed:.0f} s; last: {_tail(log)}"
            )
        show(number, step)
        time.sleep(0.1)
    raise EmulatorError(f"device {name}: QEMU failed to start: {_tail(log)}")


def _cpu_seconds(pid: int) -> tuple[float, float]:
    """Return for how long a process and its children have computed, and waited for a CPU; 0 of
    those that ended."""
    children = _read(Path(f"/proc/{pid}/task/{pid}/children")).decode().split()
    threads = [
        _read(path).split()
        for number in (str(pid), *children)
        for path in Path(f"/proc/{number}/task").glob("*/schedstat")
    ]
    computed, waited = (sum(int(times[i]) for times in threads if times) for i in (0, 1))
    return computed / 1e9, waited / 1e9


def _greets(port: int) -> bool:
    """Return whether an SSH server answers; QEMU accepts connections before the guest does."""
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
    text = _read(log.with_suffix(".qemu.log")).decode(errors="replace").strip()
    text = text or _read(log).decode(errors="replace").strip() or "no output"
    return re.sub(r"[^\x20-\x7e]", " ", text.splitlines()[-1])[:300]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def describe(machine: Machine) -> str:
    """Describe a running machine in a line."""
    spec = machine.spec
    return (
        f"{machine.name}: up, {spec.get('cpu')}, {spec.get('memory_mib')} MiB, "
        f"clock {spec.get('clock')}, port {machine.port}, pid {machine.pid}"
    )


def login(machine: Machine, built: Path) -> str:
    """Return the command that opens a shell on a machine."""
    return login_command(_ssh(machine.port, built))


def images() -> list[tuple[Path, int]]:
    """Return every image's folder with its size in bytes."""
    sizes = []
    for path in sorted((folder() / "images").glob("*")):
        if path.is_dir() and not path.suffix:
            size = sum(path.stat().st_blocks * 512 for path in path.iterdir())
            sizes.append((path, size))
    return sizes
