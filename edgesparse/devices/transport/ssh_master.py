"""The one SSH connection that all commands to a device share (OpenSSH's ControlMaster)."""

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
from edgesparse.spec.safe.temporary import TemporaryFolder

IDLE_SECONDS = 2
"""After its last command before a connection ends by itself: of a process that was killed."""
FIRST_SECONDS = 5.0
"""How long a device that hangs up at once is tried; one that is off is told at once."""
_CHECK_SECONDS = 10.0
# sun_path has 108 bytes on Linux and 104 elsewhere, and ssh appends 17 while it makes the socket.
_MAX_SOCKET = 80

# Prompts of several devices at once would be mixed up.
_prompting = threading.Lock()


class Master:
    """A background ssh that holds the connection; never more than one of ours at a time."""

    def __init__(self, name: str, spec: Ssh) -> None:
        self.name = name
        self.spec = spec
        self._folder = _socket_folder()
        self._control = self._folder.path / "c"
        self._options = _options(spec, str(self._control))
        self._pid: int | None = None
        self._anchor: subprocess.Popen[bytes] | None = None

    def argv(self, command: str) -> list[str]:
        """The ssh command that runs a shell line on the device."""
        # Where the shared connection is gone, ssh would make one of its own for this command alone.
        alone = ["-o", "BatchMode=yes", "-o", "ProxyCommand=false"]
        return ["ssh", *self._options, *alone, "--", self.spec.host, command]

    def open(self) -> None:
        """Connect. Raises DeviceError; ConnectionLost where trying again may help."""
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
        """The same after the connection broke, for RECONNECT_SECONDS; nothing if it has not."""
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
        """Whether the connection is there."""
        return self._asked_pid() is not None

    def close(self) -> None:
        """End the connection and remove what it needed here; a second time does nothing."""
        self._end()
        self._folder.close()

    def _open(self) -> None:
        # Whatever is left of the last one: ssh would start one that shares nothing, and that
        # nothing would ever end.
        self._end()
        limit = self.spec.connect_timeout_seconds
        code, said = self._start(batch=True, timeout_seconds=limit * 2 + 10)
        # First without prompts: a fleet must not stop at one board's password, and most need none.
        if code and "Permission denied" in said and sys.stdin is not None and sys.stdin.isatty():
            with _prompting:  # A passphrase, a password or a touch may be all that is missing.
                code, said = self._start(batch=False, timeout_seconds=300)
        if code:
            raise explain(self.name, self.spec, said)
        self._pid = self._asked_pid()
        if self._pid is None:
            raise explain(self.name, self.spec, "Connection closed")
        # Keeps the connection open as long as we live, whatever else takes how long: it ends when
        # its stdin does.
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
        pid = self._asked_pid() or self._pid
        self._pid = None
        if self._control.exists():
            with suppress(OSError, TimeoutError):
                self._said("-O", "exit")
        # One that does not hear, because its connection hangs, is ended all the same.
        if pid is not None and _is_ours(pid, str(self._control)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._control.unlink(missing_ok=True)

    def _asked_pid(self) -> int | None:
        """Of the process behind the socket."""
        if not self._control.exists():
            return None
        try:
            done = self._said("-O", "check")
        except (OSError, TimeoutError):
            return None
        number = done.stderr.partition("(pid=")[2].partition(")")[0]
        return int(number) if done.returncode == 0 and number.isdecimal() else None

    def _said(self, *words: str) -> processes.Completed:
        # LogLevel: the answer is told as information.
        argv = ["ssh", "-o", "LogLevel=INFO", *self._options, *words, "--", self.spec.host]
        return processes.run(argv, _CHECK_SECONDS)

    def _start(self, *, batch: bool, timeout_seconds: float) -> tuple[int, str]:
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


def _socket_folder() -> TemporaryFolder:
    """A folder whose path is short enough for a socket."""
    folder = TemporaryFolder()
    if len(os.fsencode(folder.path)) <= _MAX_SOCKET:
        return folder
    folder.close()
    return TemporaryFolder(Path("/tmp"))  # noqa: S108 (made for us alone, by mkdtemp)


def _is_ours(pid: int, control: str) -> bool:
    """Whether a process is the ssh of that socket: its id may be another's by now."""
    try:
        return control.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _options(spec: Ssh, control: str) -> list[str]:
    # Neither a path with a space nor one with a per cent sign is to be taken apart.
    options = ["-T", "-S", control.replace("%", "%%")]
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
    """A path as the value of an option, in which ssh expands and splits."""
    return '"' + os.path.expanduser(path).replace("%", "%%") + '"'
