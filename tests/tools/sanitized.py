"""Builds the delegate with the address and undefined-behaviour sanitizers of the system's g++."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgesparse.delegate.build import SOURCES, flags_of

COMPILER = "g++"
_FLAGS = (
    "-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-g1",
    "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1",
)  # fmt: skip


def has_compiler() -> bool:
    """Whether there is a g++ with the sanitizers' libraries."""
    return shutil.which(COMPILER) is not None and Path(_runtime("libasan.so")).is_file()


def sanitized(folder: Path) -> Path:
    """Build the library for this machine (x86-64) into a folder."""
    sources = [s for s in sorted(SOURCES.glob("*.cc")) if s.stem not in ("dotprod", "neon")]

    def compiled(source: Path) -> str:
        output = str(folder / f"{source.stem}.o")
        flags = [flag for flag in flags_of(source) if not flag.startswith("-O")]
        _run(*_FLAGS, *flags, "-c", str(source), "-o", output)
        return output

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources))
    library = folder / "libedgesparse-sanitized.so"
    _run("-shared", "-fsanitize=address,undefined", "-o", str(library), *objects, "-lpthread")
    return library


def environment() -> dict[str, str]:
    """Variables for a process that loads it. Leaks of Python and the runtime are theirs."""
    return {
        "LD_PRELOAD": f"{_runtime('libasan.so')} {_runtime('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:handle_abort=1:exitcode=99:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def _runtime(name: str) -> str:
    command = [COMPILER, f"-print-file-name={name}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    # A linker script or link: the preloaded library must be the file itself.
    return str(Path(path).resolve())


def _run(*arguments: str) -> None:
    done = subprocess.run([COMPILER, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
