"""The transport over SSH, through the system's OpenSSH client.

OpenSSH itself, because then whatever makes `ssh pi` work works here: every option of the user's
~/.ssh/config, agents, hardware keys, jump hosts and host certificates, with the prompts in the
user's own terminal. One connection is opened and every command goes through it (ControlMaster).
Files go through a command's stdin: that needs no sftp subsystem, shows progress, and goes on where
a broken connection ended.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edgesparse.devices.transport import processes, shell
from edgesparse.devices.transport.interface import (
    ConnectionLost,
    DeviceError,
    Progress,
    Upload,
)
from edgesparse.devices.transport.processes import Channel, Completed
from edgesparse.devices.transport.ssh_errors import UNREACHABLE, explain, login_command
from edgesparse.spec.base import Ssh

# Long enough for a router to restart its Wi-Fi, short enough not to block a board for whoever comes
# next.
LEASE_SECONDS = 60.0
IDLE_SECONDS = 60
UPLOAD_TRIES = 5
RECONNECT_SECONDS = 60.0
_BLOCK = 1 << 18

# Prompts of several devices at once would be mixed up.
_prompting = threading.Lock()

_SUM = """
sum() {
  if command -v sha256sum >/dev/null; then sha256sum < "$1"
  else shasum -a 256 < "$1"; fi | cut -c1-64
}
"""
_COMPARE = (
    _SUM
    + """
while [ $# -gt 0 ]; do
  part="$1.$2.part"
  if [ -f "$1" ] && [ "$(sum "$1")" = "$2" ]; then touch "$1" 2>/dev/null; echo have
  elif [ -f "$part" ]; then echo $(($(wc -c < "$part")))
  else echo 0; fi
  shift 2
done
"""
)
# A connection that breaks looks like the end of the file: what is too short stays, to be continued.
_RECEIVE = (
    _SUM
    + """
part="$1.$2.part"
mkdir -p "$(dirname "$1")" || exit 4
cat >> "$part" || { rm -f "$part"; exit 4; }
size=$(($(wc -c < "$part")))
[ $size -ge $3 ] || exit 5
[ "$(sum "$part")" = "$2" ] || { rm -f "$part"; exit 3; }
mv -f "$part" "$1" || exit 4
"""
)
# What we give up must not go on there for ever; without a terminal nothing else ends it.
_BOUNDED = 'command -v timeout >/dev/null && exec timeout "$@"; shift; exec "$@"'
_DAMAGED, _CANNOT_WRITE, _TOO_SHORT = 3, 4, 5


class SshTransport:
    """A device behind an SSH server. Raises DeviceError where it cannot be reached."""

    lease_seconds = LEASE_SECONDS

    def __init__(self, name: str, spec: Ssh, workdir: str, patience: float = 1.0) -> None:
        self.name = name
        self.patience = patience
        self.spec = spec
        if shutil.which("ssh") is None:
            raise DeviceError(
                f"device {name}: there is no ssh on this machine; install OpenSSH's client "
                "(sudo apt-get install openssh-client)"
            )
        self._folder = tempfile.mkdtemp(prefix="edgesparse-")
        self._options = _options(spec, f"{self._folder}/control")
        self._anchor: subprocess.Popen[bytes] | None = None
        try:
            self._connect()
            self.home = self._home()
        except BaseException:
            self.close()
            raise
        self.workdir = _absolute(workdir, self.home)
        self.python = _absolute(spec.python, self.home) if "/" in spec.python else spec.python

    def run(self, argv: Sequence[str], *, timeout_seconds: float = 60.0) -> Completed:
        limit = str(math.ceil(timeout_seconds) + 1)
        bounded = ["/bin/sh", "-c", _BOUNDED, "sh", limit, *argv]
        return self._script(shell.script_of(bounded), timeout_seconds, what=argv[0])

    @contextmanager
    def open(self, argv: Sequence[str]) -> Iterator[Channel]:
        channel = Channel(self._ssh(shell.remote_command(shell.script_of(argv))))
        try:
            yield channel
        finally:
            code = channel.close()
        if code == UNREACHABLE:
            raise ConnectionLost(f"device {self.name}: the connection was lost")

    def put_files(self, files: Sequence[Upload], progress: Progress | None = None) -> int:
        if not files:
            return 0
        # The same file for two entries is sent once.
        files = list({(file.target, file.sha256): file for file in files}.values())
        total = sum(file.source.stat().st_size for file in files)
        done = sent = 0
        # One round trip for all of them: over a slow link each costs a second.
        states = self._compare(files)
        for file, state in zip(files, states, strict=True):
            size = file.source.stat().st_size
            if state is not None:

                def tell(bytes_there: int, file: Upload = file, before: int = done) -> None:
                    if progress is not None and total:
                        progress((before + bytes_there) / total, f"sending {file.source.name}")

                sent += self._send(file, state, tell)
            done += size
        return sent

    def get_file(self, source: str, target: Path) -> None:
        script, mark = shell.marked(shell.script_of(["cat", "--", source]))
        argv = self._ssh(shell.remote_command(script))
        part = target.with_name(f"{target.name}.part")
        with tempfile.TemporaryFile() as errors:
            with (
                subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
                ) as child,
                part.open("wb") as sink,
            ):
                assert child.stdout is not None
                before = b""
                wanted = f"\n{mark}\n".encode()
                while wanted not in before and (block := os.read(child.stdout.fileno(), _BLOCK)):
                    before = (before + block)[-processes.MAX_OUTPUT :]
                sink.write(before.partition(wanted)[2])
                shutil.copyfileobj(child.stdout, sink)
            if child.returncode:
                part.unlink()
                errors.seek(0)
                said = errors.read(processes.MAX_OUTPUT).decode(errors="replace")
                raise DeviceError(f"device {self.name}: {source}: {_last(said)}")
        os.replace(part, target)

    def remove_folder(self, path: str) -> None:
        if not path.startswith(f"{self.workdir}/") or ".." in path.split("/"):
            raise ValueError(f"{path} is not below {self.workdir}")
        self.run(["rm", "-rf", "--", path])

    def close(self) -> None:
        if not self._folder:
            return
        self._let_go()
        with suppress(OSError, TimeoutError):  # It ends by itself when it is idle.
            processes.run(["ssh", *self._options, "-O", "exit", "--", self.spec.host], 5.0)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = ""

    def _ssh(self, command: str) -> list[str]:
        return ["ssh", *self._options, "-o", "BatchMode=yes", "--", self.spec.host, command]

    def _connect(self) -> None:
        """Open the connection that all commands share."""
        limit = self.spec.connect_timeout_seconds
        code, said = self._master(batch=True, timeout_seconds=limit * 2 + 10)
        # First without prompts: a fleet must not stop at one board's password, and most need none.
        if code and "Permission denied" in said and sys.stdin.isatty():
            with _prompting:  # A passphrase, a password or a touch may be all that is missing.
                code, said = self._master(batch=False, timeout_seconds=300)
        if code:
            raise explain(self.name, self.spec, said)
        # Keeps the connection open as long as we live, whatever else takes how long: it ends when
        # its stdin does.
        self._let_go()
        self._anchor = subprocess.Popen(
            self._ssh("exec cat"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _let_go(self) -> None:
        if self._anchor is not None:
            self._anchor.kill()
            self._anchor.communicate()
            self._anchor = None

    def _master(self, *, batch: bool, timeout_seconds: float) -> tuple[int, str]:
        background = ["-M", "-N", "-f", "-o", f"ControlPersist={IDLE_SECONDS}"]
        mode = ["-o", f"BatchMode={'yes' if batch else 'no'}"]
        # To a file: the part that goes to the background keeps a pipe open for ever.
        with tempfile.TemporaryFile() as output:
            try:
                done = subprocess.run(
                    ["ssh", *self._options, *background, *mode, "--", self.spec.host],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    timeout=timeout_seconds,
                    check=False,
                )
                code = done.returncode
            except subprocess.TimeoutExpired:
                return UNREACHABLE, "Connection timed out"
            output.seek(0)
            return code, output.read(processes.MAX_OUTPUT).decode(errors="replace")

    def _home(self) -> str:
        done = self._script('printf %s "$HOME"', 30.0, what="its shell")
        if done.returncode or not done.stdout.startswith("/"):
            raise DeviceError(f"device {self.name}: its shell does not work: {done.said}")
        return done.stdout

    def _script(self, script: str, timeout_seconds: float, what: str) -> Completed:
        text, mark = shell.marked(script)
        argv = self._ssh(shell.remote_command(text))
        try:
            done = processes.run(argv, timeout_seconds)
        except TimeoutError:
            raise ConnectionLost(
                f"device {self.name}: {what} gave no answer in {timeout_seconds:g} s"
            ) from None
        stdout = shell.after_mark(done.stdout, mark)
        if stdout is None:
            if done.returncode == UNREACHABLE:
                raise explain(self.name, self.spec, done.stderr)
            raise DeviceError(
                f"device {self.name}: its login shell ran no command: {done.said}; "
                f"check that this prints 'hello': {login_command(self.spec)} echo hello"
            )
        stderr = shell.after_mark(done.stderr, mark)
        if done.returncode == UNREACHABLE:
            raise ConnectionLost(f"device {self.name}: the connection was lost while {what} ran")
        return Completed(done.returncode, stdout, done.stderr if stderr is None else stderr)

    def _compare(self, files: Sequence[Upload]) -> list[int | None]:
        """None for each file that is there, else how many bytes of it are."""
        given = [text for file in files for text in (file.target, file.sha256)]
        done = self.run(["/bin/sh", "-c", _COMPARE, "sh", *given], timeout_seconds=600)
        answers = done.stdout.split()
        if done.returncode or len(answers) != len(files):
            raise DeviceError(f"device {self.name}: cannot look at its files: {done.said}")
        return [None if a == "have" else int(a) if a.isdigit() else 0 for a in answers]

    def _send(self, file: Upload, start: int, tell: processes.Tell) -> int:
        """Copy one file, again from where a broken connection ended; bytes sent."""
        sent, size = 0, file.source.stat().st_size
        place: int | None = start if start < size else 0
        for attempt in range(UPLOAD_TRIES):
            assert place is not None
            count, code, said = self._stream(file, place, size, tell)
            sent += count
            if code == 0:
                return sent
            if code == _CANNOT_WRITE:
                raise DeviceError(
                    f"device {self.name}: cannot write {file.target}: {_last(said)}; "
                    "make room there or choose another workdir in the device file"
                )
            if code == _DAMAGED and attempt:
                raise DeviceError(f"device {self.name}: {file.source.name} arrived damaged, twice")
            if code not in (UNREACHABLE, _TOO_SHORT, _DAMAGED):
                raise DeviceError(
                    f"device {self.name}: {file.source.name} was not copied: {_last(said)}"
                )
            self.reconnect()
            place = self._compare([file])[0]
            if place is None:
                return sent
        raise ConnectionLost(
            f"device {self.name}: the connection broke {UPLOAD_TRIES} times while "
            f"{file.source.name} was sent; the same command goes on from there"
        )

    def reconnect(self) -> None:
        """Open the connection again after it broke. Raises when it stays broken."""
        deadline = time.monotonic() + RECONNECT_SECONDS
        pause = 0.5
        while True:
            try:
                self._connect()
                return
            except ConnectionLost:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 8.0)

    def _stream(
        self, file: Upload, start: int, size: int, tell: processes.Tell
    ) -> tuple[int, int, str]:
        """Send a file's bytes from `start`; bytes sent, exit code, what was said."""
        argv = ["/bin/sh", "-c", _RECEIVE, "sh", file.target, file.sha256, str(size)]
        script, mark = shell.marked(shell.script_of(argv))
        with tempfile.TemporaryFile() as output, file.source.open("rb") as source:
            source.seek(start)
            with subprocess.Popen(
                self._ssh(shell.remote_command(script)),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=output,
                start_new_session=True,
            ) as child:
                assert child.stdin is not None
                sent = 0
                try:
                    while block := source.read(_BLOCK):
                        child.stdin.write(block)
                        sent += len(block)
                        tell(start + sent)
                    child.stdin.close()
                except BrokenPipeError:
                    pass
                except BaseException:
                    child.kill()
                    raise
            output.seek(0)
            said = output.read(processes.MAX_OUTPUT).decode(errors="replace")
        own = shell.after_mark(said, mark)
        return sent, child.returncode, said if own is None else own


def _options(spec: Ssh, control: str) -> list[str]:
    options = ["-T", "-S", control]
    settings = {
        # Whatever the user's configuration says: an unknown host is never trusted silently.
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": str(math.ceil(spec.connect_timeout_seconds)),
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "LogLevel": "ERROR",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "RequestTTY": "no",
    }
    if spec.known_hosts is not None:
        settings["UserKnownHostsFile"] = os.path.expanduser(spec.known_hosts)
        settings["GlobalKnownHostsFile"] = "/dev/null"
    for name, value in settings.items():
        options += ["-o", f"{name}={value}"]
    if spec.config is not None:
        options += ["-F", os.path.expanduser(spec.config)]
    if spec.user is not None:
        options += ["-l", spec.user]
    if spec.port is not None:
        options += ["-p", str(spec.port)]
    if spec.identity_file is not None:
        options += ["-i", os.path.expanduser(spec.identity_file), "-o", "IdentitiesOnly=yes"]
    return options


def _absolute(path: str, home: str) -> str:
    if path == "~" or path.startswith("~/"):
        path = home.rstrip("/") + path[1:]
    elif not path.startswith("/"):
        path = f"{home.rstrip('/')}/{path}"
    return path.rstrip("/")


def _last(said: str) -> str:
    return (said.strip() or "no reason given").splitlines()[-1][:300]
