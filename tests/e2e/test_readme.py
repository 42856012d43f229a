"""The commands of the READMEs and the documentation are run; tests/docs/test_snippets.py checks all
other examples."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import DEPLOY, DEPLOY_EMULATED, DEPLOY_MLP, ON_THE_PI_5
from tests.tools.documents import commands, programs

TESTS = ("make test", "make test-full")


def test_the_gate_runs_every_test():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"make lint", "make types", *TESTS} <= set(lines)


def test_the_command_for_an_emulated_board_is_the_one_that_is_run():
    """test_emulated.py adds which variants; make itself is run by test_deploy.py."""
    assert DEPLOY_EMULATED in commands()
    words = [*DEPLOY_EMULATED.split(), "-n", "--no-print-directory", "--old-file=.venv/.ready"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == ON_THE_PI_5


@pytest.mark.parametrize(
    ("path", "installs"), [("uv", '/uv" pip install'), ("", ".venv/bin/pip install")]
)
def test_set_up_takes_uv_where_it_is_there(tmp_path, path, installs):
    """The same rule and the same lock for both; `UV=` takes pip."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("make", "sh", "bash", *filter(None, [path])):
        source = shutil.which(name) or "/bin/true"
        (programs / name).symlink_to(source)
    # Not the settings of the make that runs the tests.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    environment["PATH"] = str(programs)

    def planned(*more: str) -> list[str]:
        words = ["make", "-B", "-n", "setup", *more]
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        return [line for line in done.stdout.splitlines() if "install" in line]

    assert all(installs in line for line in planned())
    first, second = planned()
    assert first.endswith("--require-hashes -r requirements.lock")
    assert second.endswith("-e .")
    assert all(".venv/bin/pip install" in line for line in planned("UV="))


def copy_model(project):
    """A file with zeros that both runtimes run, as the model.tflite of the documents."""
    runs = project.folder / ".edgesparse" / "runs"
    model = next(runs.glob("*/models/block-1x4-f32-tflite-runtime.tflite"))
    shutil.copy(model, project.folder / "model.tflite")


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(2400)
def test_every_command_runs(deployed, deployed_mlp):
    """In the order of the documents, in the project that the first one, make deploy, has made."""
    project, done = deployed
    assert commands()[0] == DEPLOY
    assert DEPLOY_MLP in commands()
    assert done.returncode == deployed_mlp[1].returncode == 0
    copy_model(project)
    for command in commands():
        if command in (DEPLOY, DEPLOY_MLP, DEPLOY_EMULATED, *TESTS):
            continue
        run = project.shell(command)
        assert run.returncode == 0, f"{command}\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}"


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(2400)
def test_the_python_examples_run(deployed_mlp):
    script, several = programs()["best.py"], programs()["several.py"]
    assert len(script.strip().splitlines()) <= 6
    project, *_ = deployed_mlp
    (project.folder / "best.py").write_text(script)
    done = project.shell(".venv/bin/python best.py")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "StageDone(label='train'" in done.stdout
    assert "block-1x16-int8  ai-edge-litert" in done.stdout
    copy_model(project)
    (project.folder / "several.py").write_text(several)
    done = project.shell(".venv/bin/python several.py")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("StageDone(label='benchmark on local'") == 2
