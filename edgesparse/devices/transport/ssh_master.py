"""The SSH connection that all commands to a device share (OpenSSH's ControlMaster)."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from edgesparse.devices.transport import processes
from edgesparse.devices.transport.interface import ConnectionLost
from edgesparse.devices.transport.retry import RECONNECT_SECONDS, pauses
from edgesparse.devices.transport.ssh_errors import UNREACHABLE, explain
from edgesparse.spec.base import Ssh
from edgesparse.spec.safe.temporary_folders import TemporaryFolder

IDLE_SECONDS = 2
"""Idle time after which the connection of a killed process ends by itself."""
FIRST_SECONDS = 5.0
"""How long a device that closes new connections is retried; one that is off is not."""
_CHECK_SECONDS = 10.0
# sun_path has 108 bytes on Linux and 104 elsewhere, and ssh appends 17 while it makes the socket.
_MAX_SOCKET = 80

# Prompts of several devices must not interleave.
_prompting = threading.Lock()


class Master:
    """A background ssh process that holds the connection; at most one at a time."""

    def __init__(self, name: str, spec: Ssh) -> None:
        self.name = name
        self.spec = spec
        self._folder = _socket_folder()
        self._control = self._folder.path / "c"
        self._options = _options(spec, str(self._control))
        self._pid: int | None = None
        self._anchor: subprocess.Popen[bytes] | None = None

    def argv(self, command: str) -> list[str]:
        """Return the ssh command that runs a shell line on the device."""
        # Without the shared connection, ssh would open one for this command alone.
        alone = ["-o", "BatchMode=yes", "-o", "ProxyCommand=false"]
        return ["ssh", *self._options, *alone, "--", self.spec.host, command]

    def open(self) -> None:
        """Connect. Raises DeviceError; ConnectionLost where a retry can help."""
        for _ in pauses(FIRST_SECONDS, threading.Event()):
            try:
                self._open()
                return
            except ConnectionLost as error:
                last = error
                if not error.hung_up:
                    break
        raise last

    def reopen(self, stop: threading.Event) -> None:
        """Connect again after a lost connection, for RECONNECT_SECONDS or until `stop` is set."""
        if self.alive():
            return
        for _ in pauses(RECONNECT_SECONDS, stop):
            try:
                self._open()
                return
            except ConnectionLost as error:
                last = error
        raise last

    def alive(self) -> bool:
        """Return whether the connection is open."""
        return self._control_pid() is not None

    def close(self) -> None:
        """End the connection and remove its socket; safe to call twice."""
        self._end()
        self._folder.close()

    def _open(self) -> None:
        # With a leftover socket, ssh would start a master without sharing, which nothing ends.
        self._end()
        limit = self.spec.connect_timeout_seconds
        code, output = self._start(batch=True, timeout_seconds=limit * 2 + 10)
        # First without prompts: a fleet must not block on a board's password, and most need none.
        if code and "Permission denied" in output and sys.stdin is not None and sys.stdin.isatty():
            with _prompting:  # A passphrase, a password or a touch can be all that is missing.
                code, output = self._start(batch=False, timeout_seconds=300)
        if code:
            raise explain(self.name, self.spec, output)
        self._pid = self._control_pid()
        if self._pid is None:
            raise explain(self.name, self.spec, "Connection closed")
        # Keeps the connection open for the lifetime of this process: it ends with its stdin.
        self._anchor = subprocess.Popen(
            self.argv("exec cat"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _end(self) -> None:
        if self._anchor is not None:
            self._anchor.kill()
            self._anchor.communicate()
            self._anchor = None
        pid = self._control_pid() or self._pid
        self._pid = None
        if self._control.exists():
            with suppress(OSError, TimeoutError):
                self._control_command("-O", "exit")
        # A master whose connection hangs does not react: kill it.
        if pid is not None and _is_ours(pid, str(self._control)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._control.unlink(missing_ok=True)

    def _control_pid(self) -> int | None:
        """Return the id of the process behind the socket."""
        if not self._control.exists():
            return None
        try:
            done = self._control_command("-O", "check")
        except (OSError, TimeoutError):
            return None
        number = done.stderr.partition("(pid=")[2].partition(")")[0]
        return int(number) if done.returncode == 0 and number.isdecimal() else None

    def _control_command(self, *words: str) -> processes.Completed:
        # LogLevel: ssh prints the reply at this level.
        argv = ["ssh", "-o", "LogLevel=INFO", *self._options, *words, "--", self.spec.host]
        return processes.run(argv, _CHECK_SECONDS)

    def _start(self, *, batch: bool, timeout_seconds: float) -> tuple[int, str]:
        background = ["-M", "-N", "-f", "-o", f"ControlPersist={IDLE_SECONDS}"]
        mode = ["-o", f"BatchMode={'yes' if batch else 'no'}"]
        # To a file: the process in the background would keep a pipe open.
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


def _socket_folder() -> TemporaryFolder:
    """Return a folder whose path is short enough for a socket."""
    folder = TemporaryFolder()
    if len(os.fsencode(folder.path)) <= _MAX_SOCKET:
        return folder
    folder.close()
    return TemporaryFolder(Path("/tmp"))  # noqa: S108 (made for us alone, by mkdtemp)


def _is_ours(pid: int, control: str) -> bool:
    """Return whether a process is the ssh of that socket: process ids are reused."""
    try:
        return control.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _options(spec: Ssh, control: str) -> list[str]:
    # ssh expands per cent signs in the path.
    options = ["-T", "-S", control.replace("%", "%%")]
    settings = {
        # Overrides the user's configuration: an unknown host is never trusted silently.
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
        settings["UserKnownHostsFile"] = _path(spec.known_hosts)
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
        options += ["-o", f"IdentityFile={_path(spec.identity_file)}", "-o", "IdentitiesOnly=yes"]
    return options


def _path(path: str) -> str:
    """Quote a path for the value of an option, which ssh expands and splits."""
    return '"' + os.path.expanduser(path).replace("%", "%%") + '"'
