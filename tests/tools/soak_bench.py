"""What soak breaks: projects, a device behind a real OpenSSH server, and files of others."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgesparse.tflite.format.minimal_model import tiny_model
from tests.conftest import TEMPORARY, TINY
from tests.e2e.test_isolated import plant
from tests.tools.proxy import Proxy, proxy
from tests.tools.sshd import SshServer, ssh_server

PROGRAM = str(Path(sys.executable).with_name("edgesparse"))
"""The script, as users start it: `python -m` reads the current folder, where modules lie."""
LIMIT_SECONDS = 300.0
"""How long a command may take, broken or not."""
COMMANDS = {
    "bench": ["bench", "../a.tflite", "../b.tflite", "--device", "board", "--quick"],
    "deploy": ["deploy", "../tiny.yaml", "--device", "board"],
    "deploy from nothing": ["deploy", "../tiny.yaml", "--device", "board"],
    "deploy through a shared store": ["deploy", "../shared.yaml", "--device", "board"],
    "deploy after a canary": [
        "deploy", "../tiny.yaml", "--device", "board", "--device", "second", "--canary", "board",
    ],
}  # fmt: skip
EMPTY_STORE = ("deploy from nothing", "deploy through a shared store")
"""Every stage runs again, so that faults hit stages, too, and not the benchmark alone."""


@dataclass
class Bench:
    """The loopback device, two projects that use it, and files that are nobody's business."""

    folder: Path
    server: SshServer
    link: Proxy
    temporary: Path
    foreign: dict[Path, str]
    chance: random.Random
    disks: dict[str, Path]
    """Small file systems of their own that can be filled: "here" and "there"."""
    tried: Counter[str] = field(default_factory=Counter)
    ended: dict[str, Counter[str]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    @property
    def workdir(self) -> Path:
        return self.disks.get("there", self.folder) / "work"

    @property
    def shared(self) -> Path:
        """A store that several machines could share."""
        return self.folder / "shared"

    @property
    def proof(self) -> Path:
        """Written by the planted modules, if a command ever imports one."""
        return self.folder / "proof"

    @property
    def projects(self) -> list[Path]:
        return [self.disks.get("here", self.folder) / name for name in ("one", "two")]


def start(bench: Bench, project: Path, command: str) -> subprocess.Popen[str]:
    """The program as a user starts it."""
    return subprocess.Popen(
        [PROGRAM, *COMMANDS[command]],
        cwd=project,
        env={**os.environ, "TMPDIR": str(bench.temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def prepare(project: Path, command: str) -> None:
    if command in EMPTY_STORE:
        shutil.rmtree(project / ".edgesparse" / "store")


def end(
    bench: Bench, name: str, process: subprocess.Popen[str], *, must_succeed: bool = False
) -> int:
    """Wait for it; what it must never do is noted as lost."""
    try:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        bench.lost.append(f"{name}: it hung")
    if "Traceback" in out + err:
        bench.lost.append(f"{name}: a traceback\n{err[-2000:]}")
    expected = (0,) if must_succeed else (0, 1, 130, -9)
    if process.returncode not in expected:
        bench.lost.append(f"{name}: exit code {process.returncode}\n{out[-1000:]}{err[-1000:]}")
    return process.returncode


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[bool]:
    """A file system of its own; False where that takes rights that we do not have."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=False)


@contextmanager
def prepared(seed: int) -> Iterator[Bench]:
    """The device and the projects; every stage of the pipeline is made once."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="s", dir=TEMPORARY)))
        disks = {}
        for name in ("here", "there"):
            if stack.enter_context(small_disk(folder / name, 64)):
                disks[name] = folder / name
        home = folder / "home"
        plant(home, folder / "proof")
        # A login shell begins at home; the one of whoever runs this is not touched.
        at_home = f'ForceCommand cd {home} && exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"'
        server = stack.enter_context(ssh_server(folder / "sshd", [at_home]))
        link = stack.enter_context(proxy(server.port))
        temporary = folder / "t"
        temporary.mkdir()
        bench = Bench(folder, server, link, temporary, {}, random.Random(seed), disks)
        root = bench.projects[0].parent
        for name, extra in (("a", 300_000), ("b", 5)):
            (root / f"{name}.tflite").write_bytes(tiny_model() + os.urandom(extra))
        (root / "tiny.yaml").write_text(TINY)
        store = f"name: tiny\nstore: file://{bench.shared}"
        (root / "shared.yaml").write_text(TINY.replace("name: tiny", store, 1))
        plant(root, bench.proof)
        text = server.device_yaml(**server.through(link.port))
        text = text.replace(f"workdir: {server.workdir}", f"workdir: {bench.workdir}")
        for project in bench.projects:
            (project / "devices").mkdir(parents=True)
            (project / "devices" / "board.yaml").write_text(text)
            second = text.replace("name: board", "name: second")
            workdir = f"workdir: {bench.workdir}"
            (project / "devices" / "second.yaml").write_text(
                second.replace(workdir, f"{workdir}-second")
            )
            plant(project, bench.proof)
        first = bench.projects[0]
        if end(bench, "the first run", start(bench, first, "deploy")) != 0 or bench.lost:
            raise SystemExit(f"nothing works, even unbroken: {bench.lost}")
        shutil.copytree(first / ".edgesparse", bench.projects[1] / ".edgesparse")
        for path in (
            bench.workdir / "files" / "thesis.pdf",
            bench.workdir / "jobs" / "application.doc",
            bench.workdir / "venvs" / "mine",
            temporary.parent / "edgesparse-notes",
            # As `uv venv $TMPDIR/edgesparse-env` leaves it.
            temporary / "edgesparse-env" / ".lock",
            temporary / "edgesparse-env" / "pyvenv.cfg",
            server.home / "letter",
        ):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(os.urandom(1000))
            os.utime(path, (0, 0))
            bench.foreign[path] = digest_of(path)
        yield bench
