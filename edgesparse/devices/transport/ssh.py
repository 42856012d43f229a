"""The transport over SSH, through the system's OpenSSH client.

OpenSSH itself, because then whatever makes `ssh pi` work works here: every option of the user's
~/.ssh/config, agents, hardware keys, jump hosts and host certificates, with the prompts in the
user's own terminal. One connection is opened and every command goes through it (ssh_master.py);
files go through a command's stdin (ssh_upload.py).
"""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgesparse.devices.transport import processes, shell
from edgesparse.devices.transport.interface import (
    FETCH_SECONDS,
    MAX_FETCHED_BYTES,
    ConnectionLost,
    DeviceError,
    Progress,
    Upload,
    note_used,
)
from edgesparse.devices.transport.processes import Channel, Completed
from edgesparse.devices.transport.retry import persistent
from edgesparse.devices.transport.ssh_errors import UNREACHABLE, explain, login_command
from edgesparse.devices.transport.ssh_master import Master
from edgesparse.devices.transport.ssh_upload import Sender
from edgesparse.spec.base import Ssh
from edgesparse.spec.safe.journal import Journal

# Long enough for a router to restart its Wi-Fi, short enough not to block a board for whoever comes
# next.
LEASE_SECONDS = 60.0
FIRST_ANSWER_SECONDS = 90.0
"""A board that is booting, or one of fifty that are connected in parallel, is slow to answer."""

# A command that timed out here must not run on the device for ever; without a terminal nothing else
# ends it.
_BOUNDED = 'command -v timeout >/dev/null && exec timeout "$@"; shift; exec "$@"'


class SshTransport:
    """A device behind an SSH server. Raises DeviceError where it cannot be reached."""

    lease_seconds = LEASE_SECONDS
    is_ephemeral = False

    def __init__(self, name: str, spec: Ssh, workdir: str, patience: float = 1.0) -> None:
        self.name = name
        self.clock_slowdown = patience
        self.spec = spec
        self.used: set[str] = set()
        self.journal: Journal | None = None
        self.stop = threading.Event()
        if shutil.which("ssh") is None:
            raise DeviceError(
                f"device {name}: ssh is not installed on this machine; install OpenSSH's client "
                "(sudo apt-get install openssh-client)"
            )
        self._master = Master(name, spec)
        try:
            self._master.open()
            self.home = self._home()
        except BaseException:
            self.close()
            raise
        self.workdir = _absolute(workdir, self.home)
        self.python = _absolute(spec.python, self.home) if "/" in spec.python else spec.python
        self._sender = Sender(
            name,
            self.workdir,
            lambda argv: self.run(argv, timeout_seconds=600),
            self._master.argv,
            self.reconnect,
        )

    def run(self, argv: Sequence[str], *, timeout_seconds: float = 60.0) -> Completed:
        limit = str(math.ceil(timeout_seconds) + 1)
        bounded = ["/bin/sh", "-c", _BOUNDED, "sh", limit, *argv]
        return self._script(shell.script_of(bounded), timeout_seconds, what=argv[0])

    @contextmanager
    def open(self, argv: Sequence[str]) -> Iterator[Channel]:
        channel = Channel(self._master.argv(shell.remote_command(shell.script_of(argv))))
        try:
            yield channel
        finally:
            code = channel.close()
        # ssh returns this code also when a signal ended the command.
        if code == UNREACHABLE and not self._master.alive():
            raise ConnectionLost(f"device {self.name}: the connection was lost")

    def put_files(
        self,
        files: Sequence[Upload],
        progress: Progress | None = None,
        refused: dict[str, str] | None = None,
    ) -> int:
        note_used(self, files)
        return self._sender.put(files, progress, refused)

    def get_file(self, source: str, target: Path, max_bytes: int = MAX_FETCHED_BYTES) -> None:
        script, mark = shell.marked(shell.script_of(["cat", "--", source]))
        argv = self._master.argv(shell.remote_command(script))
        part = target.with_name(f"{target.name}.part")

        def fetch() -> None:
            with part.open("wb") as sink:
                marker = f"\n{mark}\n".encode()
                problem = processes.fetch(argv, marker, sink, max_bytes, FETCH_SECONDS)
            if problem and not self._master.alive():
                raise ConnectionLost(f"device {self.name}: {source}: {problem}")
            if problem:
                raise DeviceError(f"device {self.name}: {source}: {problem}")

        try:
            persistent(fetch, self.reconnect)
            os.replace(part, target)
        except TimeoutError:
            raise DeviceError(f"device {self.name}: {source}: copying timed out") from None
        except OverflowError:
            raise DeviceError(
                f"device {self.name}: {source} is larger than the limit of {max_bytes / 1e6:.0f} MB"
            ) from None
        finally:
            part.unlink(missing_ok=True)

    def remove_folder(self, path: str) -> None:
        if not path.startswith(f"{self.workdir}/") or ".." in path.split("/"):
            raise ValueError(f"{path} is not below {self.workdir}")
        self.run(["rm", "-rf", "--", path])

    def reconnect(self) -> None:
        self._master.reopen(self.stop)

    def close(self) -> None:
        self._master.close()

    def _home(self) -> str:
        done = self._script('printf %s "$HOME"', FIRST_ANSWER_SECONDS, what="its shell")
        if done.returncode or not done.stdout.startswith("/"):
            raise DeviceError(f"device {self.name}: its shell does not work: {done.last_line}")
        return done.stdout

    def _script(self, script: str, timeout_seconds: float, what: str) -> Completed:
        return persistent(lambda: self._once(script, timeout_seconds, what), self.reconnect)

    def _once(self, script: str, timeout_seconds: float, what: str) -> Completed:
        text, mark = shell.marked(script)
        argv = self._master.argv(shell.remote_command(text))
        try:
            done = processes.run(argv, timeout_seconds)
        except TimeoutError:
            raise ConnectionLost(
                f"device {self.name}: {what} did not finish within {timeout_seconds:g} s",
                may_return=not self._master.alive(),
            ) from None
        stdout = shell.output_after_mark(done.stdout, mark)
        # ssh returns this code also when a signal ended the command.
        broken = done.returncode == UNREACHABLE and not self._master.alive()
        if broken and stdout is None:
            raise explain(self.name, self.spec, done.stderr)
        if broken:
            raise ConnectionLost(f"device {self.name}: the connection was lost while {what} ran")
        if stdout is None:
            raise DeviceError(
                f"device {self.name}: its login shell did not run the command: {done.last_line}; "
                f"check that this prints 'hello': {login_command(self.spec)} echo hello"
            )
        stderr = shell.output_after_mark(done.stderr, mark)
        return Completed(done.returncode, stdout, done.stderr if stderr is None else stderr)


def _absolute(path: str, home: str) -> str:
    if path == "~" or path.startswith("~/"):
        path = home.rstrip("/") + path[1:]
    elif not path.startswith("/"):
        path = f"{home.rstrip('/')}/{path}"
    return path.rstrip("/")
