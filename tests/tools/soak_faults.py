"""Faults of soak. Each is called with the bench and the process, at some moment of its life."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from tests.devices.ondevice.test_detached import processes
from tests.tools.soak_bench import COMMANDS, PROGRAM, Bench, end, start

SIGNALS = {"Ctrl-C": 2, "SIGTERM": 15, "SIGHUP": 1, "kill -9 here": 9}


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
    running = sorted(processes(bench.workdir))
    if running:
        with suppress(ProcessLookupError):
            os.kill(bench.chance.choice(running), signal.SIGKILL)


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
