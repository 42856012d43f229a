"""The delegate's libraries: what they export and need, and how they are built."""

import shutil
import subprocess
import sys

import pytest
from setuptools import Distribution
from setuptools.command.build_py import build_py

from edgesparse.delegate import build
from edgesparse.delegate.wheel import BuildPy
from edgesparse.spec.safe.files import user_cache
from tests.conftest import ROOT
from tests.tools.elf import read_library

MACHINES = {"x86_64": 62, "aarch64": 183}


@pytest.mark.parametrize("architecture", build.ARCHITECTURES)
def test_a_library_exports_two_symbols_and_needs_glibc_only(architecture):
    elf = read_library(build.library(architecture))
    assert elf.machine == MACHINES[architecture]
    assert elf.exports == set(build.SYMBOLS)
    loaders = {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    assert elf.needed <= {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2"} | loaders
    assert elf.glibc <= (2, 17)
    assert build.library(architecture).stat().st_size < 2_000_000


def test_no_path_of_this_machine_is_in_a_library():
    for architecture in build.ARCHITECTURES:
        content = build.library(architecture).read_bytes()
        for path in (ROOT, build.library(architecture).parent, sys.prefix):
            assert str(path).encode() not in content


@pytest.mark.full
def test_the_same_sources_give_the_same_bytes_elsewhere(tmp_path, monkeypatch):
    first = {a: build.library(a).read_bytes() for a in build.ARCHITECTURES}
    shutil.copytree(build.SOURCES, tmp_path / "another" / "src")
    monkeypatch.setattr(build, "SOURCES", tmp_path / "another" / "src")
    # A cache of its own: nothing that was compiled for the first one is taken.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build.build(tmp_path / "built")
    for architecture, content in first.items():
        assert (tmp_path / "built" / build.file_name(architecture)).read_bytes() == content


_ASKS = """
import sys
from edgesparse.delegate import build
from edgesparse.spec.safe.files import user_cache
real = build.build
def counted(folder):
    print("built", flush=True)
    return real(folder)
build.build = counted
print(build.library("aarch64"), flush=True)
"""


@pytest.mark.full
def test_two_processes_build_once(tmp_path, monkeypatch):
    cache = tmp_path / "edgesparse"
    cache.mkdir()
    (cache / "zig").symlink_to(user_cache("zig"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = [sys.executable, "-c", _ASKS]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in "12"]
    printed = [process.communicate()[0].split() for process in both]
    assert sorted(map(len, printed)) == [1, 2]
    assert printed[0][-1] == printed[1][-1]
    # Nothing is left of the building.
    assert sorted(p.name for p in (cache / "delegate").iterdir()) == sorted(
        ["lock", build.digest()]
    )


def test_the_digest_covers_sources_flags_and_compiler(tmp_path, monkeypatch):
    shutil.copytree(build.SOURCES, tmp_path / "src")
    before = build.digest()
    monkeypatch.setattr(build, "SOURCES", tmp_path / "src")
    assert build.digest() == before
    (tmp_path / "src" / "cpu.cc").open("a").write("// changed\n")
    assert build.digest() != before
    monkeypatch.undo()
    monkeypatch.setattr(build, "_FLAGS", (*build._FLAGS, "-g"))
    assert build.digest() != before
    monkeypatch.undo()
    monkeypatch.setattr(build, "_version", lambda: "0.0")
    assert build.digest() != before


def test_a_missing_compiler_is_named_with_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "COMPILER", "no_such_compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(build.BuildError, match="the compiler is missing; pip install"):
        build.library("x86_64")
    assert not list((tmp_path / "edgesparse" / "delegate").glob("[0-9a-f]*"))


def test_a_wheel_without_libraries_says_why(tmp_path, monkeypatch):
    """As the wheel's builder leaves it where nothing can be built."""
    monkeypatch.setattr(build, "COMPILER", "no_such_compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = BuildPy(Distribution())
    command.initialize_options()
    command.editable_mode, command.build_lib = False, str(tmp_path / "wheel")
    monkeypatch.setattr(build_py, "run", lambda _: None)
    command.run()
    folder = tmp_path / "wheel" / "edgesparse" / "delegate" / "lib"
    assert [path.name for path in folder.iterdir()] == [build.MISSING]
    monkeypatch.setattr(build, "LIBRARIES", folder)
    with pytest.raises(build.BuildError, match=r"this one was built without it \(the delegate is"):
        build.library("x86_64")


def test_an_error_in_a_source_names_it(tmp_path, monkeypatch):
    shutil.copytree(build.SOURCES, tmp_path / "src")
    (tmp_path / "src" / "cpu.cc").write_text("// flags: -O2\nint broken(\n")
    monkeypatch.setattr(build, "SOURCES", tmp_path / "src")
    with pytest.raises(build.BuildError, match=r"cpu\.cc"):
        build.build(tmp_path / "built")
    assert not list((tmp_path / "built").glob("*.so"))


def test_an_unknown_architecture_is_refused():
    with pytest.raises(build.BuildError, match="no delegate for riscv64; edgesparse has it for"):
        build.library("riscv64")
