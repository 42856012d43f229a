"""A project as a user has it after cloning, and one real `make deploy` in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgesparse.bench.results import Results
from edgesparse.graph.workspace import Workspace
from tests.conftest import ROOT, require

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


@pytest.fixture(scope="session")
def fresh_project(tmp_path_factory) -> Project:
    """The shipped files with this environment as .venv; nothing has been run."""
    folder = tmp_path_factory.mktemp("project")
    for name in FILES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy2(source, folder / name)
    environment = Path(sys.prefix)
    require((environment / ".ready").exists(), "run the tests with 'make test'")
    (folder / ".venv").symlink_to(environment)
    os.utime(environment / ".ready")
    (folder / "home").mkdir()
    return Project(folder)


DEPLOY = "make deploy"
DEPLOY_MLP = "make deploy DEVICE=local PIPELINE=pipelines/digits-mlp.yaml"
DEPLOY_EMULATED = "make deploy DEVICE=pi5-emulated PIPELINE=pipelines/digits.yaml"
DEPLOY_EMULATED_MLP = "make deploy DEVICE=pi5-emulated PIPELINE=pipelines/digits-mlp.yaml"


@pytest.fixture(scope="session")
def deployed(fresh_project) -> tuple[Project, subprocess.CompletedProcess[str]]:
    """After the README's first command."""
    require(sys.version_info < (3, 12), "tflite-runtime has wheels up to Python 3.11")
    return fresh_project, fresh_project.shell(DEPLOY, timeout=1500)


EMULATOR_TOOLS = ("qemu-system-aarch64", "mke2fs", "cpio", "dpkg-deb", "ssh")


@dataclass
class Background:
    """Runs that go on beside the tests: those on the emulated Pi leave one core idle."""

    wanted: bool
    pool: ThreadPoolExecutor
    runs: dict[str, Future[list[subprocess.CompletedProcess[str]]]]

    def start(self, project: Project, name: str, *commands: str) -> None:
        """One command after the other; only where a test waits for them."""
        if self.wanted:
            self.runs[name] = self.pool.submit(
                lambda: [project.shell(command, 1800) for command in commands]
            )


@pytest.fixture(scope="session")
def background(request) -> Iterator[Background]:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    possible = all(shutil.which(tool, path=path) for tool in EMULATOR_TOOLS)
    asked = any("emulated" in getattr(item, "fixturenames", ()) for item in request.session.items)
    with ThreadPoolExecutor() as pool:
        yield Background(possible and asked, pool, {})


@pytest.fixture(scope="session")
def deployed_mlp(deployed, background) -> tuple[Project, subprocess.CompletedProcess[str], Results]:
    """After the README's first command with another pipeline; and that run's results."""
    project, _ = deployed
    # digits' models are there, digits-mlp's soon; the same twice must give the same figures.
    background.start(project, "digits", DEPLOY_EMULATED, DEPLOY_EMULATED)
    done = project.shell(DEPLOY_MLP)
    background.start(project, "digits-mlp", DEPLOY_EMULATED_MLP)
    return project, done, project.results_of(done)


@dataclass(frozen=True)
class Run:
    """A command that ended, and what it found."""

    project: Project
    done: subprocess.CompletedProcess[str]

    @property
    def results(self) -> Results:
        return self.project.results_of(self.done)

    def rows(self, runtime):
        return {r.variant: r for r in self.results.rows if r.runtime.name == runtime}


@pytest.fixture(scope="session")
def emulated(deployed_mlp, background):
    """digits twice, the first time without an image, and beside it digits-mlp."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for tool in EMULATOR_TOOLS:
        require(shutil.which(tool, path=path) is not None, f"{tool}, for the emulated Pi")
    project, *_ = deployed_mlp
    first, second = background.runs["digits"].result()
    (mlp,) = background.runs["digits-mlp"].result()
    for done in (first, second, mlp):
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return project, *(Run(project, done) for done in (first, second, mlp))
