"""Builds the delegate's shared libraries for x86-64 and aarch64 with the compiler that pip brings.

`ziglang` is Clang with the headers and symbol tables of every glibc: it needs no compiler of the
system, builds for both architectures on either, and its libraries run with any glibc since 2.17.
The same sources give the same bytes, wherever they lie. Standard library only: pip runs this, too,
when it makes a wheel.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, util
from pathlib import Path

from edgesparse.spec.errors import EdgesparseError
from edgesparse.spec.safe.files import file_digest, locked, user_cache

ARCHITECTURES = ("x86_64", "aarch64")
SYMBOLS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")
"""All that a library exports: what a runtime's load_delegate looks for."""
SOURCES = Path(__file__).with_name("src")
COMPILER = "ziglang"
LIBRARIES = Path(__file__).with_name("lib")
"""Where a wheel has its libraries."""
MISSING = "missing.txt"
"""File there that says why a wheel has none."""
_GLIBC = "2.17"
_ONLY = {"x86_64": re.compile(r"-m(avx|amx|sse)"), "aarch64": re.compile(r"-march=armv8")}
"""Which flags mark a source as one architecture's own."""
_ZIG_FLAGS = {
    "-march=armv8-a": "-mcpu=generic",
    "-march=armv8.2-a+dotprod": "-mcpu=generic+v8_2a+dotprod",
}
_FLAGS = (
    "-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-g0",
    # A fused multiply and add rounds once where XNNPACK rounds twice.
    "-ffp-contract=off",
    # Static variables are made when the library is loaded, which needs no locks of the C++ library.
    "-fno-threadsafe-statics",
    # What zig adds by itself: checks that would end the runtime's process.
    "-fno-sanitize=all", "-fno-stack-protector", "-U_FORTIFY_SOURCE", "-Wall", "-Werror",
)  # fmt: skip
_LINK = ("-shared", "-nostdlib++", "-Wl,--build-id=none", "-Wl,-z,relro", "-Wl,-z,now", "-s")


class BuildError(EdgesparseError):
    """The delegate cannot be built here."""


def file_name(architecture: str) -> str:
    """Name a shared library's file."""
    return f"libedgesparse-{architecture}.so"


def library(architecture: str) -> Path:
    """The shared library for an architecture: the wheel's, else one that is built once and kept.

    Raises:
        BuildError: there is none for it, or it cannot be built.
    """
    return _packaged(architecture) or _cached() / file_name(architecture)


def identity(architecture: str) -> str:
    """Digest that changes with an architecture's shared library, which is not built for it.

    Raises:
        BuildError: there is none for it, or it cannot be built.
    """
    packaged = _packaged(architecture)
    if packaged is not None:
        return file_digest(packaged)
    if not _is_folder(_folder()):
        _compiler()
    return digest()


def _packaged(architecture: str) -> Path | None:
    """The library that came with the wheel; None in a clone."""
    if architecture not in ARCHITECTURES:
        raise BuildError(
            f"no delegate for {architecture}; edgesparse has it for {' and '.join(ARCHITECTURES)}"
        )
    path = LIBRARIES / file_name(architecture)
    return path if path.is_file() else None


def build(folder: Path) -> list[Path]:
    """Build the libraries of all architectures into a folder; raises BuildError."""
    zig = _compiler()
    sources = sorted(SOURCES.glob("*.cc"))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        jobs = [(a, s) for a in ARCHITECTURES for s in sources if _is_for(s, a)]

        def compiled(job: tuple[str, Path]) -> Path:
            target, source = job
            output = Path(temporary, f"{target}-{source.stem}.o")
            _zig(
                zig,
                target,
                *_FLAGS,
                *_translated(flags_of(source)),
                "-c",
                source.name,
                "-o",
                str(output),
            )
            return output

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compiled, jobs))
        exports = Path(temporary, "exports.map")
        exports.write_text("{ global: " + "; ".join(SYMBOLS) + "; local: *; };\n")
        libraries = []
        for architecture in ARCHITECTURES:
            pairs = zip(jobs, objects, strict=True)
            inputs = [str(output) for (target, _), output in pairs if target == architecture]
            name = file_name(architecture)
            part = Path(temporary, name)
            flags = (*_LINK, f"-Wl,--version-script={exports}", f"-Wl,-soname,{name}")
            _zig(zig, architecture, *flags, *inputs, "-lpthread", "-lm", "-o", str(part))
            libraries.append(part.replace(folder / name))
    return libraries


def flags_of(source: Path) -> list[str]:
    """Read a source's `// flags:` comment: the options it is compiled with."""
    match = re.search(r"^// flags: *(.*)$", source.read_text(encoding="utf-8"), re.MULTILINE)
    return match.group(1).split() if match else []


def _is_for(source: Path, architecture: str) -> bool:
    flags = " ".join(flags_of(source))
    return all(name == architecture or not only.search(flags) for name, only in _ONLY.items())


def _translated(flags: Sequence[str]) -> list[str]:
    """Rewrite flags that GCC and Clang share into those of zig."""
    # 512 bits have a flag of their own, which GCC and other versions of Clang do not know.
    wide = ["-mevex512"] * any("avx512" in flag for flag in flags)
    return [_ZIG_FLAGS.get(flag, flag) for flag in flags] + wide


def digest() -> str:
    """Digest everything that a library depends on: sources, flags and compiler."""
    state = hashlib.sha256(json.dumps([_FLAGS, _LINK, _GLIBC, _version()]).encode())
    for source in sorted(SOURCES.iterdir()):
        content = source.read_bytes()
        state.update(f"{source.name} {len(content)}\n".encode() + content)
    return state.hexdigest()[:32]


def _cached() -> Path:
    """The folder of what was built of these sources; built now if there is none."""
    folder = _folder()
    if _is_folder(folder):
        return folder
    try:
        with locked(folder.with_name("lock")):
            if not folder.is_dir():  # Nobody else built it meanwhile.
                with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                    part = Path(temporary, "whole")
                    build(part)
                    part.rename(folder)
    except OSError as error:
        raise BuildError(f"the delegate cannot be built: {folder}: {error.strerror}") from None
    return folder


def _is_folder(path: Path) -> bool:
    """Path.is_dir, also where the folder above may not be read."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _folder() -> Path:
    return user_cache("delegate") / digest()


def _compiler() -> Path:
    """Find the compiler; raises BuildError."""
    package = util.find_spec(COMPILER)
    folders = list(package.submodule_search_locations or ()) if package else []
    path = next((p for f in folders if (p := Path(f, "zig")).is_file()), None)
    if path is None:
        reason = LIBRARIES / MISSING
        wheel = "install edgesparse from a wheel, which has it built"
        if reason.is_file():
            why = reason.read_text(encoding="utf-8", errors="replace")
            wheel = f"install another wheel of edgesparse: this one was built without it ({why})"
        raise BuildError(
            "the delegate is not built: the compiler is missing; pip install "
            f"'{COMPILER}=={_pinned()}', or {wheel}"
        )
    return path


def _version() -> str:
    try:
        return metadata.version(COMPILER)
    except metadata.PackageNotFoundError:
        return "none"


def _zig(zig: Path, architecture: str, *arguments: str) -> None:
    """Run the compiler, from the sources' folder, so that no path of this machine gets into what it
    writes; raises BuildError."""
    target = f"{architecture}-linux-gnu.{_GLIBC}"
    environment = {
        name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ
    }
    for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        environment[name] = str(user_cache("zig"))
    command: Sequence[str] = [str(zig), "c++", "-target", target, *arguments]
    done = subprocess.run(command, cwd=SOURCES, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error:" in line] or [done.stderr]
        what = next((word for word in arguments if word.endswith(".cc")), "linking")
        raise BuildError(
            f"the delegate cannot be built for {architecture}: {what}: {lines[0][:400]}"
        )


def _pinned() -> str:
    """The compiler's version that edgesparse is built with."""
    for line in metadata.requires("edgesparse") or ():
        match = re.match(rf"{COMPILER}==([0-9.]+)", line)
        if match:
            return match.group(1)
    return "0.15.2"
