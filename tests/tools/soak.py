"""Breaks runs against a loopback device at random, for as long as is asked, and looks what is lost.

    python -m tests.tools.soak --minutes 30 [--seed N]        (make soak)

Each try runs a real command against a real OpenSSH server, breaks it somewhere, runs the same
command once more unbroken, and then looks: results whole, no orphan process, no foreign file
touched, nothing temporary left. Ends with a table of what was tried; exit code 0 when nothing was
lost.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import click

from edgesparse.graph.store import Store
from edgesparse.graph.workspace import Workspace
from edgesparse.spec.errors import EdgesparseError
from edgesparse.tflite.format.tiny import tiny_model
from tests.conftest import TEMPORARY, TINY, our_ssh
from tests.devices.ondevice.test_detached import processes
from tests.devices.setup.test_install import require_whole
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
SIGNALS = {"Ctrl-C": 2, "SIGTERM": 15, "SIGHUP": 1, "kill -9 here": 9}
RUNS = 'Breaks runs until "minutes" are over, or "tries" are made.'


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


# Faults. Each gets the bench and the process, at some moment of its life.


def send(number: int) -> Callable[[Bench, subprocess.Popen[str]], None]:
    return lambda _, process: process.send_signal(number)


def cut(bench: Bench, _: object) -> None:
    bench.server.cut()


def cut_and_hang_up(bench: Bench, _: object) -> None:
    bench.link.refuse = bench.chance.randint(1, 3)
    bench.server.cut()


def slow(bench: Bench, _: object) -> None:
    bench.link.bytes_per_second = 50_000
    time.sleep(3)
    bench.link.bytes_per_second = None


def each_on_device(bench: Bench, number: int) -> None:
    for pid in processes(bench.workdir):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def power_cut(bench: Bench, _: object) -> None:
    bench.server.cut()
    each_on_device(bench, signal.SIGKILL)


def kill_one_there(bench: Bench, _: object) -> None:
    found = sorted(processes(bench.workdir))
    if found:
        with suppress(ProcessLookupError):
            os.kill(bench.chance.choice(found), signal.SIGKILL)


def stall_there(bench: Bench, _: object) -> None:
    each_on_device(bench, signal.SIGSTOP)
    time.sleep(2)
    each_on_device(bench, signal.SIGCONT)


def fill(which: str) -> Callable[[Bench, subprocess.Popen[str]], None]:
    def act(bench: Bench, process: subprocess.Popen[str]) -> None:
        place = bench.disks[which] / "full"
        with suppress(OSError), place.open("wb") as file:
            while file.write(b"x" * 65536):
                file.flush()
        with suppress(subprocess.TimeoutExpired):
            process.wait(bench.chance.uniform(0.5, 5))
        place.unlink(missing_ok=True)

    return act


def another_host(bench: Bench, _: object) -> None:
    other = start(bench, bench.projects[1], bench.chance.choice(sorted(COMMANDS)))
    end(bench, "another host beside the first", other, must_succeed=True)


def alter_release(bench: Bench, _: object) -> None:
    for name in ("predict.py", "labels.json"):
        file = bench.workdir / "releases" / "tiny" / "current" / name
        with suppress(OSError):
            file.write_text("altered")


def roll_back(bench: Bench, _: object) -> None:
    """While a deploy goes on; there may be nothing to go back to."""
    words = ["device", "rollback", "board", "tiny"]
    done = subprocess.run([PROGRAM, *words], cwd=bench.projects[1], capture_output=True, text=True)
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        bench.lost.append(f"a rollback beside it: exit {done.returncode}\n{done.stderr[-500:]}")


def damage_shared_store(bench: Bench, _: object) -> None:
    """Files that are cut, emptied or gone, as a disk or another program leaves them."""
    files = sorted(path for path in bench.shared.rglob("*") if path.is_file())
    for path in bench.chance.sample(files, min(3, len(files))):
        with suppress(OSError):
            if bench.chance.random() < 0.3:
                path.unlink()
            else:
                os.truncate(path, bench.chance.randrange(path.stat().st_size + 1) // 2)


def nothing(*_: object) -> None:
    pass


FAULTS: dict[str, Callable[[Bench, subprocess.Popen[str]], None]] = {
    **{name: send(number) for name, number in SIGNALS.items()},
    "the connection is cut": cut,
    "cut, and hung up while keys are exchanged": cut_and_hang_up,
    "a link of 50 KB/s for a while": slow,
    "power cut there": power_cut,
    "one process killed there": kill_one_there,
    "everything there stalls for 2 s": stall_there,
    "the disk there is full for a while": fill("there"),
    "the disk here is full for a while": fill("here"),
    "another host at once": another_host,
    "the release is altered": alter_release,
    "a rollback at the same time": roll_back,
    "the shared store is damaged": damage_shared_store,
    "nothing": nothing,
}


def attempt(bench: Bench, name: str, typical_seconds: dict[str, float]) -> None:
    """One try: broken, then unbroken, then looked at."""
    command = bench.chance.choice(sorted(COMMANDS))
    project = bench.projects[0]
    before = len(bench.lost)
    prepare(project, command)
    process = start(bench, project, command)
    with suppress(subprocess.TimeoutExpired):
        process.wait(bench.chance.uniform(0.2, typical_seconds[command]))
    breaking = threading.Thread(target=FAULTS[name], args=(bench, process))
    breaking.start()
    code = end(bench, name, process)
    breaking.join(LIMIT_SECONDS)
    bench.link.refuse, bench.link.bytes_per_second = 0, None
    bench.tried[name] += 1
    bench.ended.setdefault(name, Counter())[f"exit {code}"] += 1
    look_at_results(bench, name, project, code)
    look_at_canary(bench, name, project)
    again = start(bench, project, command)
    unbroken = end(bench, f"{name}, then unbroken", again, must_succeed=True)
    if unbroken == 0 and "deploy" in command:
        look_at_releases(bench, name)
    look_around(bench, name)
    if len(bench.lost) > before:
        print(f"\nLOST after {name} ({command}): {bench.lost[before:]}", flush=True)


def look_at_results(bench: Bench, name: str, project: Path, code: int) -> None:
    """What was measured is there, or it never came that far."""
    workspace = Workspace(project)
    for run in workspace.run_ids():
        try:
            results = workspace.results(run)
        except EdgesparseError as error:
            bench.lost.append(f"{name}: results of {run}: {error}")
            continue
        if any(row.status == "ok" and row.latency_ms is None for row in results.rows):
            bench.lost.append(f"{name}: a row of {run} is ok and has no figures")
    if code == 0 and (not results.finished or any(r.status != "ok" for r in results.rows)):
        bench.lost.append(f"{name}: it said 0 and has failed rows")
    store = project / ".edgesparse" / "store"
    problems = Store(store).problems() if store.is_dir() else []
    if problems:
        bench.lost.append(f"{name}: {problems}")


def look_at_canary(bench: Bench, name: str, project: Path) -> None:
    """The other device is measured only after the canary is well."""
    workspace = Workspace(project)
    for run in workspace.run_ids():
        with suppress(EdgesparseError):
            rows = workspace.results(run).rows
            canary = [row.status for row in rows if row.device == "board"]
            if any(row.device == "second" for row in rows) and set(canary) != {"ok"}:
                bench.lost.append(f"{name}: {run} went on after its canary failed: {canary}")


def look_at_releases(bench: Bench, name: str) -> None:
    """After a deploy that nothing broke, what is current is whole."""
    try:
        require_whole(bench.workdir / "releases" / "tiny" / "current")
    except (OSError, ValueError, AssertionError) as error:
        bench.lost.append(f"{name}: the current release is damaged: {error!r}")


def look_around(bench: Bench, name: str) -> None:
    """No orphan, no foreign file touched, no planted module imported, nothing temporary left."""
    if bench.proof.exists():
        bench.lost.append(f"{name}: imported {bench.proof.read_text()}")
        bench.proof.unlink()
    found = {
        "processes on the device": list(processes(bench.workdir).values()),
        "ssh processes here": list(our_ssh().values()),
        "temporary files here": [
            str(path)
            for path in bench.temporary.iterdir()
            if not any(path in foreign.parents for foreign in bench.foreign)
        ],
        "files and jobs there": [
            str(path)
            for folder in ("files", "jobs")
            if (bench.workdir / folder).is_dir()
            for path in (bench.workdir / folder).iterdir()
            if path not in bench.foreign
        ],
        "half artifacts": [
            str(path)
            for project in bench.projects
            for path in (project / ".edgesparse" / "store").glob("tmp-*")
        ],
        "foreign files": [
            str(path) for path, digest in bench.foreign.items() if digest_of(path) != digest
        ],
    }
    for what, left in found.items():
        if left:
            bench.lost.append(f"{name}: {what}: {left[:5]}")


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


def report(bench: Bench, seed: int) -> None:
    width = max(map(len, bench.tried), default=0)
    print(f"\n{'fault':<{width}}  tries  ended with")
    for name, count in sorted(bench.tried.items()):
        codes = ", ".join(f"{code} ({n})" for code, n in sorted(bench.ended[name].items()))
        print(f"{name:<{width}}  {count:>5}  {codes}")
    skipped = sorted(set(FAULTS) - set(bench.tried))
    if skipped:
        print(f"not tried: {', '.join(skipped)}")
    print(f"{sum(bench.tried.values())} tries, seed {seed}")
    print("\n".join(["LOST:", *bench.lost]) if bench.lost else "nothing lost")


@click.command(help=RUNS)
@click.option("--minutes", type=float, default=30.0, show_default=True)
@click.option("--tries", type=int, help="Stop after so many.")
@click.option("--seed", type=int, help="Of an earlier run, to try the same again.")
def main(minutes: float, tries: int | None, seed: int | None) -> None:
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    print(f"seed {seed}", flush=True)
    with prepared(seed) as bench:
        names = [n for n in FAULTS if "disk" not in n or n.split()[2] in bench.disks]
        typical_seconds = {}
        for command in COMMANDS:
            prepare(bench.projects[0], command)
            moment = time.monotonic()
            end(bench, "unbroken", start(bench, bench.projects[0], command))
            typical_seconds[command] = time.monotonic() - moment
        deadline, done = time.monotonic() + minutes * 60, 0
        while time.monotonic() < deadline and (tries is None or done < tries):
            if done % len(names) == 0:  # Each once before any comes twice.
                bench.chance.shuffle(names)
            attempt(bench, names[done % len(names)], typical_seconds)
            done += 1
            left = max(0.0, deadline - time.monotonic()) / 60
            print(f"\r{done} tries, {len(bench.lost)} lost, {left:.0f} min left", end="")
            sys.stdout.flush()
        report(bench, seed)
        sys.exit(1 if bench.lost else 0)


if __name__ == "__main__":
    main()
