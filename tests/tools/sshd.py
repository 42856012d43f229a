"""A real OpenSSH server on loopback, started by whoever runs the tests."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgesparse.devices.transport.ssh import SshTransport
from edgesparse.spec.base import Ssh
from tests.conftest import require

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


@dataclass
class SshServer:
    """`folder` holds its keys and known_hosts; `home` is what its sessions have as HOME."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    config: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def workdir(self) -> Path:
        return self.folder / "workdir"

    def spec(self, **changes: Any) -> Ssh:
        given = {
            "host": "127.0.0.1",
            "user": getpass.getuser(),
            "port": self.port,
            "identity_file": str(self.folder / "key"),
            "known_hosts": str(self.folder / "known_hosts"),
            "python": sys.executable,
            **changes,
        }
        return Ssh(**given)

    def through(self, port: int) -> dict[str, Any]:
        """What changes in `spec` to reach it through a proxy on `port`."""
        own = self.folder / f"known_hosts_{port}"
        known = (self.folder / "known_hosts").read_text()
        own.write_text(known.replace(f":{self.port} ", f":{port} "))
        return {"port": port, "known_hosts": str(own)}

    def connect(self, workdir: Path | str | None = None, **changes: Any) -> SshTransport:
        return SshTransport("board", self.spec(**changes), str(workdir or self.workdir))

    def device_yaml(self, name: str = "board", **changes: Any) -> str:
        keys = "".join(
            f"    {key}: {value}\n"
            for key, value in self.spec(**changes).model_dump(exclude_none=True).items()
        )
        return (
            f"name: {name}\nconnect:\n  ssh:\n{keys}workdir: {self.workdir}\n"
            "install: system\nruntimes: [ai-edge-litert]\n"
        )

    def start(self) -> None:
        program = shutil.which("sshd", path=PATH)
        require(program is not None, "an OpenSSH server (apt-get install openssh-server)")
        assert program is not None
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        (self.folder / "sshd_config").write_text("\n".join(self._lines()) + "\n")
        # In the foreground, and heard: it says when it listens.
        self.process = subprocess.Popen(
            [program, "-D", "-e", "-f", str(self.folder / "sshd_config")],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        assert self.process.stderr is not None
        said = b""
        while b"Server listening" not in said:
            line = self.process.stderr.readline()
            assert line, said.decode()
            said += line
        self.log = (self.folder / "sshd.log").open("ab")
        self._drain = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=self.log)

    def _lines(self) -> list[str]:
        return [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder / 'host_key'}",
            f"AuthorizedKeysFile {self.folder / 'key.pub'}",
            f"PidFile {self.folder / 'sshd.pid'}",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "MaxStartups 100",
            *self.config,
            # A home of its own: the start-up files of whoever runs the tests are not the board's.
            f"SetEnv HOME={self.home} "
            + " ".join(f"{name}={value}" for name, value in self.environment.items()),
        ]

    def connections(self) -> list[int]:
        """Processes of the server that serve somebody."""
        assert self.process is not None
        return descendants(self.process.pid)

    def cut(self) -> None:
        """Break every connection, as a pulled cable does; what runs detached goes on."""
        for pid in self.connections():
            # Any of these may end between two lines.
            with suppress(ProcessLookupError, FileNotFoundError):
                if Path(f"/proc/{pid}/comm").read_text().strip().startswith("sshd"):
                    os.kill(pid, 9)

    def stop(self) -> None:
        if self.process is not None:
            self.cut()
            self.process.kill()
            self.process.wait()
            self._drain.wait()
            self.log.close()
            self.process = None


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, in whichever thread, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):  # Any of these may end between two lines.
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_key(path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True
    )


@contextmanager
def ssh_server(
    folder: Path, config: Sequence[str] = (), **environment: object
) -> Iterator[SshServer]:
    """A server whose keys and files are in `folder`; `environment` of its sessions."""
    require(shutil.which("ssh-keygen") is not None, "OpenSSH's client (openssh-client)")
    folder.mkdir(parents=True, exist_ok=True)
    server = SshServer(
        folder,
        free_port(),
        config=config,
        environment={name: str(value) for name, value in environment.items()},
    )
    for name in ("key", "host_key"):
        if not (folder / name).exists():
            make_key(folder / name)
    server.home.mkdir(exist_ok=True)
    host_key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {host_key}")
    server.start()
    try:
        yield server
    finally:
        server.stop()
