"""What ssh says when it cannot connect, as one message with what to do."""

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
"""What ssh says of a device that is there and broke the connection, or of one on the way to it."""


def login_command(spec: Ssh) -> str:
    """The ssh command by which a user tries the same connection."""
    words = ["ssh"]
    if spec.config is not None:
        words += ["-F", spec.config]
    if spec.known_hosts is not None:
        known = spec.known_hosts
        odd = " " in known or "%" in known  # In an option's value ssh splits and expands.
        known = '"' + known.replace("%", "%%") + '"' if odd else known
        words += ["-o", f"UserKnownHostsFile={known}"]
    if spec.identity_file is not None:
        words += ["-i", spec.identity_file.replace("%", "%%")]
    if spec.port is not None:
        words += ["-p", str(spec.port)]
    host = spec.host if spec.user is None else f"{spec.user}@{spec.host}"
    return " ".join(_word(word) for word in [*words, host])


def locked_keys(spec: Ssh) -> list[str]:
    """The private keys that ssh would use and cannot without a passphrase."""
    argv = ["ssh", *(["-F", os.path.expanduser(spec.config)] if spec.config else []), "-G"]
    named = [spec.identity_file] if spec.identity_file else []
    with suppress(OSError, TimeoutError):
        if not named:
            settings = processes.run([*argv, "--", spec.host], _LOOK_SECONDS).stdout.splitlines()
            named = [line.partition(" ")[2] for line in settings if line.startswith("identityfile")]
        known = processes.run(["ssh-add", "-L"], _LOOK_SECONDS).stdout
        return [name for name in named if _locked(Path(os.path.expanduser(name)), known)]
    return []


def _locked(key: Path, known: str) -> bool:
    """Whether a private key needs a passphrase, and an agent that knows the keys `known` does not
    know it."""
    if not key.is_file():
        return False
    with suppress(OSError, IndexError):
        if key.with_name(f"{key.name}.pub").read_text().split()[1] in known:
            return False
    done = processes.run(["ssh-keygen", "-y", "-P", "", "-f", str(key)], _LOOK_SECONDS)
    return "incorrect passphrase" in done.stderr


def agent_runs() -> bool:
    """Whether there is an agent that keys can be given to."""
    return bool(os.environ.get("SSH_AUTH_SOCK"))


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
        key = spec.identity_file
        if key is not None and not os.path.exists(os.path.expanduser(key)):
            return DeviceError(
                f"{place}: there is no file {key} on this machine; correct "
                "connect.ssh.identity_file, or make a key with: ssh-keygen"
            )
        locked = locked_keys(spec)
        if locked:
            return DeviceError(
                f"{place}: its key {locked[0]} has a passphrase, and no agent knows it; give it to "
                f"one with: {'' if agent_runs() else 'eval $(ssh-agent); '}ssh-add "
                f"{shlex.quote(locked[0])}"
            )
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
    # Closed while keys are exchanged, ssh may end without a word.
    if not said.strip() or any(word in said for word in _HUNG_UP):
        told = last if said.strip() else "it closed the connection"
        return ConnectionLost(f"{place}: {told}; try: {login}", hung_up=True)
    if any(word in said for word in _AWAY):
        return ConnectionLost(
            f"{place}: {last}; is the device on and in this network? Try: {login}"
        )
    return DeviceError(f"{place}: ssh failed: {last}; try: {login}")


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip(" @\r\n")]
    return clean(lines[-1], 200) if lines else "no answer"


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
