"""Errors of ssh as messages with the cause and the command to type."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import suppress
from pathlib import Path

from edgesparse.devices.transport import processes
from edgesparse.devices.transport.interface import ConnectionLost, DeviceError
from edgesparse.spec.base import Ssh
from edgesparse.spec.safe.text import clean

UNREACHABLE = 255
"""ssh's exit code for its own failures."""
_LOOK_SECONDS = 10.0

_AWAY = (
    "Connection refused",
    "Connection timed out",
    "timed out",
    "No route to host",
    "Network is unreachable",
    "not responding",
)
_HUNG_UP = (
    "Connection reset",
    "Connection closed",
    "closed by remote host",
    "Connection corrupted",
    "Corrupted MAC",
    "Bad packet length",
    "kex_exchange_identification",
    "ssh_dispatch_run_fatal",
    "Broken pipe",
    "client_loop",
    "mux_client",
    "muxclient",
    "Control socket",
    "lost connection",
)
"""Errors of ssh when the device, or a host on the way to it, closed the connection."""


def login_command(spec: Ssh) -> str:
    """Return the ssh command by which a user tries the same connection."""
    words = ["ssh"]
    if spec.config is not None:
        words += ["-F", spec.config]
    if spec.known_hosts is not None:
        known_hosts = spec.known_hosts
        # ssh splits and expands the value of an option.
        odd = " " in known_hosts or "%" in known_hosts
        known_hosts = '"' + known_hosts.replace("%", "%%") + '"' if odd else known_hosts
        words += ["-o", f"UserKnownHostsFile={known_hosts}"]
    if spec.identity_file is not None:
        words += ["-i", spec.identity_file.replace("%", "%%")]
    if spec.port is not None:
        words += ["-p", str(spec.port)]
    host = spec.host if spec.user is None else f"{spec.user}@{spec.host}"
    return " ".join(_word(word) for word in [*words, host])


def locked_keys(spec: Ssh) -> list[str]:
    """Return the private keys of ssh that need a passphrase."""
    argv = ["ssh", *(["-F", os.path.expanduser(spec.config)] if spec.config else []), "-G"]
    key_files = [spec.identity_file] if spec.identity_file else []
    with suppress(OSError, TimeoutError):
        if not key_files:
            settings = processes.run([*argv, "--", spec.host], _LOOK_SECONDS).stdout.splitlines()
            key_files = [
                line.partition(" ")[2] for line in settings if line.startswith("identityfile")
            ]
        agent_keys = processes.run(["ssh-add", "-L"], _LOOK_SECONDS).stdout
        return [
            name for name in key_files if _is_locked(Path(os.path.expanduser(name)), agent_keys)
        ]
    return []


def _is_locked(key: Path, agent_keys: str) -> bool:
    """Return whether a private key needs a passphrase and is not among the agent's keys."""
    if not key.is_file():
        return False
    with suppress(OSError, IndexError):
        if key.with_name(f"{key.name}.pub").read_text().split()[1] in agent_keys:
            return False
    done = processes.run(["ssh-keygen", "-y", "-P", "", "-f", str(key)], _LOOK_SECONDS)
    return "incorrect passphrase" in done.stderr


def agent_runs() -> bool:
    """Return whether an ssh-agent is running."""
    return bool(os.environ.get("SSH_AUTH_SOCK"))


def _word(word: str) -> str:
    """Quoted for a shell, leaving a ~ that the shell is to expand."""
    return word if re.fullmatch(r"~?[\w@%+=:,./\[\]-]*", word) else shlex.quote(word)


def explain(name: str, spec: Ssh, stderr: str) -> DeviceError:
    """Return the error for ssh's stderr; ConnectionLost where a retry can help."""
    device = f"device {name} ({spec.host})"
    login = login_command(spec)
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in stderr:
        return DeviceError(
            f"{device}: its host key has changed, so it can be another machine; if you know why (a "
            f"new SD card, for instance), remove the old key with: {_forget(spec, stderr)}; "
            f"then compare the new one with: {login}"
        )
    if "Host key verification failed" in stderr or "host key is known" in stderr:
        return DeviceError(
            f"{device}: unknown host key; compare it and accept it once with: {login}"
        )
    if "Permission denied" in stderr or "Too many authentication failures" in stderr:
        key = spec.identity_file
        if key is not None and not os.path.exists(os.path.expanduser(key)):
            return DeviceError(
                f"{device}: {key} does not exist on this machine; correct "
                "connect.ssh.identity_file, or create a key with: ssh-keygen"
            )
        locked = locked_keys(spec)
        if locked:
            return DeviceError(
                f"{device}: the key {locked[0]} has a passphrase and is not in an agent; add it "
                f"with: {'' if agent_runs() else 'eval $(ssh-agent); '}ssh-add "
                f"{shlex.quote(locked[0])}"
            )
        return DeviceError(
            f"{device}: every key was refused; make this work without a password: {login}; "
            f"copy a key with: {login.replace('ssh', 'ssh-copy-id', 1)}"
        )
    if "Could not resolve hostname" in stderr:
        return DeviceError(
            f"{device}: unknown host name; correct connect.ssh.host, or add the name to "
            "~/.ssh/config"
        )
    last = _reason(stderr)
    if "Connection refused" in stderr:
        return ConnectionLost(
            f"{device}: connection refused ({last}); switch the device on and enable its SSH server"
        )
    # A connection that is closed during the key exchange can end ssh without a message.
    if not stderr.strip() or any(word in stderr for word in _HUNG_UP):
        reason = last if stderr.strip() else "it closed the connection"
        return ConnectionLost(f"{device}: {reason}; try: {login}", hung_up=True)
    if any(word in stderr for word in _AWAY):
        return ConnectionLost(
            f"{device}: {last}; check that the device is on and in this network; try: {login}"
        )
    return DeviceError(f"{device}: ssh failed: {last}; try: {login}")


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip(" @\r\n")]
    return clean(lines[-1], 200) if lines else "no answer"


def _forget(spec: Ssh, stderr: str) -> str:
    """Return the ssh-keygen command that removes an outdated host key."""
    offending = re.search(r"^Offending .* key in (.+):\d+\s*$", stderr, re.MULTILINE)
    host_line = re.search(r"^Host key for (.+) has changed", stderr, re.MULTILINE)
    host = host_line.group(1) if host_line else spec.host
    if spec.port not in (None, 22) and not host.startswith("["):
        host = f"[{host}]:{spec.port}"
    command = ["ssh-keygen", "-R", host]
    if offending:
        command += ["-f", offending.group(1)]
    return shlex.join(command)
