"""What ssh says when it cannot connect, as one message with what to do."""

from __future__ import annotations

import re
import shlex

from edgesparse.devices.transport.interface import ConnectionLost, DeviceError
from edgesparse.spec.base import Ssh

UNREACHABLE = 255
"""ssh's exit code for its own failures."""

_TRANSIENT = (
    "Connection refused",
    "Connection timed out",
    "timed out",
    "No route to host",
    "Network is unreachable",
    "Connection reset",
    "Connection closed",
    "Broken pipe",
    "not responding",
    "client_loop",
    "mux_client",
    "Control socket",
    "lost connection",
)


def login_command(spec: Ssh) -> str:
    """The ssh command by which a user tries the same connection."""
    words = ["ssh"]
    if spec.config is not None:
        words += ["-F", spec.config]
    if spec.known_hosts is not None:
        words += ["-o", f"UserKnownHostsFile={spec.known_hosts}"]
    if spec.identity_file is not None:
        words += ["-i", spec.identity_file]
    if spec.port is not None:
        words += ["-p", str(spec.port)]
    host = spec.host if spec.user is None else f"{spec.user}@{spec.host}"
    return " ".join(_word(word) for word in [*words, host])


def _word(word: str) -> str:
    """Quoted for a shell, leaving a ~ that the shell is to expand."""
    return word if re.fullmatch(r"~?[\w@%+=:,./\[\]-]*", word) else shlex.quote(word)


def explain(name: str, spec: Ssh, said: str) -> DeviceError:
    """The error for what ssh printed; ConnectionLost where trying again may help."""
    place = f"device {name} ({spec.host})"
    login = login_command(spec)
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        return DeviceError(
            f"{place}: its host key has changed, so it may be another machine; if you know why (a "
            f"new SD card, say), forget the old key with: {_forget(spec, said)}; "
            f"then compare the new one with: {login}"
        )
    if "Host key verification failed" in said or "host key is known" in said:
        return DeviceError(
            f"{place}: its host key is not known; compare it and accept it once with: {login}"
        )
    if "Permission denied" in said or "Too many authentication failures" in said:
        return DeviceError(
            f"{place}: it refused every key; make this work without a password: {login}; "
            f"a key gets there with: {login.replace('ssh', 'ssh-copy-id', 1)}"
        )
    if "Could not resolve hostname" in said:
        return DeviceError(
            f"{place}: no machine has that name; correct connect.ssh.host, or add the name to "
            "~/.ssh/config"
        )
    last = _reason(said)
    if "Connection refused" in said:
        return ConnectionLost(
            f"{place}: nothing listens there: {last}; is the device on, and its SSH server enabled?"
        )
    if any(word in said for word in _TRANSIENT):
        return ConnectionLost(
            f"{place}: {last}; is the device on and in this network? Try: {login}"
        )
    return DeviceError(f"{place}: ssh failed: {last}; try: {login}")


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip(" @\r\n")]
    return lines[-1][:200] if lines else "no answer"


def _forget(spec: Ssh, said: str) -> str:
    """The ssh-keygen command that removes the key which no longer fits."""
    offending = re.search(r"^Offending .* key in (.+):\d+\s*$", said, re.MULTILINE)
    named = re.search(r"^Host key for (.+) has changed", said, re.MULTILINE)
    host = named.group(1) if named else spec.host
    if spec.port not in (None, 22) and not host.startswith("["):
        host = f"[{host}]:{spec.port}"
    command = ["ssh-keygen", "-R", host]
    if offending:
        command += ["-f", offending.group(1)]
    return shlex.join(command)
