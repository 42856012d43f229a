"""A project as a user has it after cloning, and one real `make deploy` in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgesparse.bench.results import Results
from edgesparse.pipeline.workspace import Workspace
from tests.conftest import ROOT, require

FILES = ("Makefile", "README.md", "pyproject.toml", "requirements.lock", "pipelines", "devices")


@dataclass(frozen=True)
class Project:
    """`log` is what the run printed on stderr, `results` what it found."""

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

    @property
    def results(self) -> Results:
        return Workspace(self.folder).results()


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


@pytest.fixture(scope="session")
def deployed(fresh_project) -> tuple[Project, subprocess.CompletedProcess[str]]:
    """After the README's first command."""
    require(sys.version_info < (3, 12), "tflite-runtime has wheels up to Python 3.11")
    return fresh_project, fresh_project.shell(DEPLOY, timeout=1500)


@pytest.fixture(scope="session")
def deployed_mlp(deployed) -> tuple[Project, subprocess.CompletedProcess[str], Results]:
    """After the README's first command with another pipeline; and that run's results."""
    project, _ = deployed
    done = project.shell(DEPLOY_MLP)
    return project, done, project.results
