"""Every YAML example in the READMEs is valid; every command in them is run."""

import json
import re
import shutil
import subprocess

import pytest

from edgesparse.spec.reading.load import load_any
from tests.conftest import ROOT
from tests.e2e.conftest import DEPLOY, DEPLOY_EMULATED, DEPLOY_MLP, ON_THE_PI_5

READMES = ("README.md", "pipelines/README.md", "devices/README.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(readme, language):
    return [b for kind, b in BLOCK.findall((ROOT / readme).read_text()) if kind == language]


def examples():
    for readme in READMES:
        for i, text in enumerate(blocks(readme, "yaml")):
            yield pytest.param(readme, text, id=f"{readme}-{i}")


def commands():
    found = []
    for readme in READMES:
        for text in blocks(readme, "sh"):
            lines = [re.sub(r"\s+#.*", "", line).strip() for line in text.splitlines()]
            found += [line for line in lines if line and line not in found]
    return found


@pytest.mark.parametrize(("readme", "text"), examples())
def test_every_example_is_valid(readme, text, tmp_path):
    # Programs for devices, of devices/README.md, run in tests/delegate/test_load.py.
    for python in blocks(readme, "python") if readme != "devices/README.md" else ():
        name = re.match(r"# (\w+\.py)\n", python)
        assert name, "a Python example begins with its file name"
        compile(python, name.group(1), "exec")
        (tmp_path / name.group(1)).write_text(python)
    path = tmp_path / "example.yaml"
    path.write_text(text)
    load_any(path)


def test_there_are_examples():
    assert len(list(examples())) >= 4
    assert len(commands()) >= 8


TESTS = ("make test", "make test-full")
TRAINING = re.compile(r"edgesparse (run|deploy|sensitivity|history|emulator) |-emulated$")


def takes_long(command):
    """Whether it trains, needs what was trained, or boots an emulated board: test_newcomer.py runs
    all others."""
    return command.startswith("make ") or TRAINING.search(command) is not None


def test_the_gate_runs_every_test():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"make lint", "make types", *TESTS} <= set(lines)


def test_the_command_for_an_emulated_board_is_the_one_that_is_run():
    """test_emulated.py adds which variants; make itself is run by test_deploy.py."""
    assert DEPLOY_EMULATED in commands()
    words = [*DEPLOY_EMULATED.split(), "-n", "--no-print-directory", "--old-file=.venv/.ready"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == ON_THE_PI_5


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(2400)
def test_every_command_runs(deployed, deployed_mlp):
    """In the order of the READMEs, in the project that the first one, make deploy, has made."""
    project, done = deployed
    assert commands()[0] == DEPLOY
    assert DEPLOY_MLP in commands()
    assert done.returncode == deployed_mlp[1].returncode == 0
    for command in commands():
        if command in (DEPLOY, DEPLOY_MLP, DEPLOY_EMULATED, *TESTS) or not takes_long(command):
            continue
        run = project.shell(command)
        assert run.returncode == 0, f"{command}\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}"


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(2400)
def test_the_readmes_python_runs(deployed_mlp):
    script, several = blocks("README.md", "python")
    assert len(script.strip().splitlines()) <= 6
    project, *_ = deployed_mlp
    (project.folder / "best.py").write_text(script)
    done = project.shell(".venv/bin/python best.py")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "StageDone(label='train'" in done.stdout
    assert "block-1x16-int8  ai-edge-litert" in done.stdout
    model = next((project.folder / ".edgesparse" / "store").glob("*/sparse.tflite"))
    shutil.copy(model, project.folder / "model.tflite")
    (project.folder / "several.py").write_text(several)
    done = project.shell(".venv/bin/python several.py")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("StageDone(label='benchmark on local'") == 2


def test_the_own_parts_of_the_readme_work(tmp_path):
    """The Python examples do what their YAML example promises."""
    from edgesparse import data, models
    from edgesparse.spec.reading.load import load_pipeline

    for python in blocks("pipelines/README.md", "python"):
        (tmp_path / re.match(r"# (\w+\.py)\n", python).group(1)).write_text(python)
    path = tmp_path / "p.yaml"
    path.write_text(next(t for t in blocks("pipelines/README.md", "yaml") if "own-parts" in t))
    loaded = load_pipeline(path)
    assert data.load(loaded.spec.data, tmp_path).input_shape == (32,)
    assert models.build(loaded.spec.model, tmp_path).output_shape == (None, 2)


@pytest.mark.parametrize(("kind", "readme"), [("pipeline", READMES[1]), ("device", READMES[2])])
def test_every_key_is_documented(kind, readme):
    schema = json.loads((ROOT / f"{kind}s" / "schema.json").read_text())
    text = (ROOT / readme).read_text()
    for model in [schema, *schema["$defs"].values()]:
        for key in model.get("properties", {}):
            assert re.search(rf"[`{{\[, .]{key}[`}}\],:]", text), f"{model.get('title')}: {key}"
