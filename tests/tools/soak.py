"""Breaks runs against a loopback device at random, for as long as is asked, and looks what is lost.

    python -m tests.tools.soak --minutes 30 [--seed N]        (make soak)

Each try runs a real command against a real OpenSSH server, breaks it somewhere, runs the same
command once more unbroken, and then looks: results whole, no orphan process, no foreign file
touched, nothing temporary left. Ends with a table of what was tried; exit code 0 when nothing was
lost.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress

import click

from tests.tools.soak_bench import COMMANDS, LIMIT_SECONDS, Bench, end, prepare, prepared, start
from tests.tools.soak_checks import (
    look_around,
    look_at_canary,
    look_at_releases,
    look_at_results,
)
from tests.tools.soak_faults import FAULTS

RUNS = 'Breaks runs until "minutes" are over, or "tries" are made.'


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
