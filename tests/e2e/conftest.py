"""A project as a user has it after cloning, and one real `make deploy` in it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from edgesparse.devices.emulator import machine as emulator
from edgesparse.graph.workspace import Workspace
from edgesparse.measure.results import Results
from edgesparse.measure.rows import Row
from edgesparse.spec.safe.files import user_cache
from tests.conftest import HERE, ROOT, TINY, Done, once, require, run_cli

FILES = ("Makefile", "README.md", "pyproject.toml", "requirements.lock", "pipelines", "devices")


@dataclass(frozen=True)
class Project:
    """A folder with the shipped files, in which commands are typed."""

    folder: Path

    def shell(self, command: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """A line of a README, as typed."""
        environment = {**os.environ, "HOME": str(self.folder / "home")}
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    def results_of(self, done: subprocess.CompletedProcess[str]) -> Results:
        """What a run found that has ended and printed its table."""
        run = re.search(r"  run (\S+)", done.stdout)
        assert run is not None, done.stdout[-3000:] + done.stderr[-3000:]
        return Workspace(self.folder).results(run.group(1))


def make_home(home: Path) -> None:
    """For a user of its own, whose emulated boards are nobody else's. Only their images, whose
    names are their recipes' digests, are those of whoever runs the tests: they outlast a run."""
    images = emulator.folder() / "images"
    images.mkdir(parents=True, exist_ok=True)
    boards = home / ".cache" / "edgesparse" / "emulator"
    boards.mkdir(parents=True)
    (boards / "images").symlink_to(images)
    # The delegate's libraries as well, whose names are their sources' digests.
    built = user_cache("delegate")
    built.mkdir(parents=True, exist_ok=True)
    (boards.parent / "delegate").symlink_to(built)


def clone(folder: Path) -> Project:
    """The shipped files with this environment as .venv, as after cloning."""
    environment = Path(sys.prefix)
    require((environment / ".ready").exists(), "run the tests with 'make test'")
    folder.mkdir()
    for name in FILES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy2(source, folder / name)
    (folder / ".venv").symlink_to(environment)
    os.utime(environment / ".ready")
    make_home(folder / "home")
    return Project(folder)


@pytest.fixture(scope="session")
def project(shared) -> Project:
    """A clone that all of pytest's processes share."""
    folder = shared / "project"

    def make() -> Done:
        clone(folder)
        return subprocess.CompletedProcess("clone", 0, "", "")

    once(shared / "cloned", make)
    return Project(folder)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A project with the tiny pipeline, and a store of its own."""
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.yaml").write_text(HERE)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


@pytest.fixture
def trained(folder, shared_store) -> Path:
    """The same in the store of all tests, where its models are trained."""
    return folder


def deploy(folder: Path, *more: str) -> Done:
    return run_cli("deploy", "tiny.yaml", "--device", "here", *more, cwd=folder)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A command that a test does something to while it runs."""
    return subprocess.Popen(
        [sys.executable, "-m", "edgesparse", *arguments],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background ignores Ctrl-C, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


ROUND_DONE = re.compile(r"  benchmark on (\S+): .*, round (\d+)/")


def await_rounds(process: subprocess.Popen[str], *devices: str) -> None:
    """Until every variant was measured once on each device: rounds take turns, so that the second
    of any comes after the first of all."""
    waiting = set(devices)
    assert process.stderr is not None
    for line in process.stderr:
        matched = ROUND_DONE.match(line)
        if matched is not None and int(matched.group(2)) >= 2:
            waiting.discard(matched.group(1))
        if not waiting:
            return
    raise AssertionError(f"it ended before it had measured on {waiting}")


def rows(folder: Path) -> dict[str, Row]:
    """The last run's, by variant."""
    return {row.variant: row for row in Workspace(folder).results().rows}


def edit(folder: Path, old: str, new: str) -> None:
    """Change the tiny pipeline."""
    text = (folder / "tiny.yaml").read_text()
    assert old in text
    (folder / "tiny.yaml").write_text(text.replace(old, new))


DEPLOY = "make deploy"
DEPLOY_MLP = "make deploy DEVICE=local PIPELINE=pipelines/digits-mlp.yaml"
DEPLOY_EMULATED = "make deploy DEVICE=pi5-emulated PIPELINE=pipelines/digits.yaml"
# What it runs, as `make -n` says: test_readme.py holds them together.
ON_THE_PI_5 = ".venv/bin/edgesparse deploy pipelines/digits.yaml --device pi5-emulated"
MLP_ON_THE_PI_5 = ON_THE_PI_5.replace("digits.yaml", "digits-mlp.yaml")
# Those of which something is known there; all others are measured on this machine.
VARIANTS_THERE = (
    "dense-f32", "dense-int8", "half-f16", "channels-int8", "sparse-f32", "sparse-int8-block",
    "channels-sparse-int8",
)  # fmt: skip
MLP_VARIANTS_THERE = ("dense-int8", "block-1x16-int8")


@pytest.fixture(scope="session")
def deployed(project, shared) -> tuple[Project, Done]:
    """After the README's first command."""
    require(sys.version_info < (3, 12), "tflite-runtime has wheels up to Python 3.11")
    return project, once(shared / "deployed", lambda: project.shell(DEPLOY, timeout=1500))


@pytest.fixture(scope="session")
def deployed_mlp(deployed, shared) -> tuple[Project, Done, Results]:
    """After the README's first command with another pipeline; and that run's results."""
    project, _ = deployed
    done = once(shared / "deployed-mlp", lambda: project.shell(DEPLOY_MLP))
    return project, done, project.results_of(done)


@dataclass(frozen=True)
class Run:
    """A command that ended, and what it found."""

    project: Project
    done: Done

    @property
    def results(self) -> Results:
        return self.project.results_of(self.done)

    def rows(self, runtime: str) -> dict[str, Row]:
        return {row.variant: row for row in self.results.rows if row.runtime.name == runtime}


def machines(project: Project) -> list[int]:
    """QEMU processes of this project's home."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"qemu-system") and str(project.folder).encode() in command:
            found.append(int(entry.name))
    return found


EMULATOR_TOOLS = ("qemu-system-aarch64", "mke2fs", "cpio", "dpkg-deb", "ssh")


@pytest.fixture(scope="session")
def emulator_tools() -> None:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for tool in EMULATOR_TOOLS:
        require(shutil.which(tool, path=path) is not None, f"{tool}, for the emulated Pi")


class Emulated(NamedTuple):
    """Runs on the emulated Pi 5: digits, and digits-mlp twice, which must give the same figures;
    and what a program there prints that imports the model of digits."""

    project: Project
    digits: Run
    mlp: Run
    mlp_again: Run
    program: Done


# A user's program, which counts its calls in a second of the board's clock.
PROGRAM = """
import json, time
import numpy
from edgesparse_model import Model
model = Model()
frames = numpy.load("frames.npy")
start = time.perf_counter()
answers = [model.labels[model(frame).argmax()] for frame in frames]
print(json.dumps([answers, len(frames) / (time.perf_counter() - start), model.delegate]))
"""


@pytest.fixture(scope="session")
def emulated(deployed_mlp, emulator_tools) -> Emulated:
    """Their models are those of the runs on this machine."""
    project, *_ = deployed_mlp

    def measured(command: str, variants: tuple[str, ...]) -> Run:
        words = [command, *(f"--variant {variant}" for variant in variants)]
        done = project.shell(" ".join(words), 1800)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return Run(project, done)

    digits = measured(ON_THE_PI_5, VARIANTS_THERE)
    with board_up(project, "pi5-emulated") as up:
        first, second = (measured(MLP_ON_THE_PI_5, MLP_VARIANTS_THERE) for _ in range(2))
        program = imported_there(project, up, digits.results)
    return Emulated(project, digits, first, second, program)


def frames_of_digits(count: int = 100) -> tuple[np.ndarray, list[str]]:
    """Digits as a camera has them, grey in bytes; and which they are."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    frames = (x[-count:] * 255 / 16).round().astype(np.uint8).reshape(-1, 8, 8)
    return frames, [str(digit) for digit in y[-count:]]


def imported_there(project: Project, up: Done, results: Results) -> Done:
    """Export the best model, copy it to a board that is up, and run a program beside it there."""
    best, folder = results.best(), project.folder / f"on-the-board-{os.getpid()}"
    extra = project.folder / f"{folder.name}-program"
    extra.mkdir()
    np.save(extra / "frames.npy", frames_of_digits()[0])
    (extra / "program.py").write_text(PROGRAM)
    login = up.stdout.partition("log in with: ")[2].strip()
    words = f"{best.variant} --run {results.run} --runtime {best.runtime.name} -o {folder}"
    return project.shell(
        f".venv/bin/edgesparse export {words} >&2 && cp {extra}/* {folder} && "
        f"tar -C {folder} -c . | {login} 'mkdir model && tar -C model -x' && "
        f"{login} 'cd model && ~/.cache/edgesparse/venv/bin/python program.py'"
    )


@contextmanager
def board_up(project: Project, name: str) -> Iterator[Done]:
    """An emulated board that is booted once for several commands."""
    try:
        # Building its image takes two minutes, or as long as Debian's packages take to come.
        done = project.shell(f".venv/bin/edgesparse emulator up {name}", 1200)
        assert done.returncode == 0, done.stderr[-3000:]
        yield done
    finally:
        down = project.shell(f".venv/bin/edgesparse emulator down {name}")
        assert down.returncode == 0, down.stderr[-3000:]
