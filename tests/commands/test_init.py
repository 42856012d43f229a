"""New projects: shipped examples with what they refer to, and a workflow that holds."""

import subprocess
import sys
import zipfile

import pytest
import yaml

from edgesparse.commands import init
from edgesparse.commands.init import examples, write_project
from edgesparse.delegate.build import ARCHITECTURES, file_name, library
from edgesparse.docs import topics
from edgesparse.spec.errors import UsageError
from edgesparse.spec.reading.load import load_device, load_pipeline
from tests.conftest import ROOT


@pytest.mark.parametrize("name", examples())
def test_an_example_is_whole_and_valid(tmp_path, name):
    written = write_project(tmp_path, name)
    assert written[0] == tmp_path / "pipelines" / f"{name}.yaml"
    load_pipeline(written[0])
    text = written[0].read_text()
    for file in ("examples.py", "breast-cancer.csv"):
        assert (tmp_path / "pipelines" / file).is_file() == (file in text)


def test_examples_go_together_and_nothing_of_a_users_is_lost(tmp_path):
    write_project(tmp_path)
    second = write_project(tmp_path, "words")
    assert tmp_path / "devices" / "local.yaml" not in second, "what is the same stays"
    assert write_project(tmp_path, "words") == []
    mine = tmp_path / "pipelines" / "pairs.yaml"
    mine.write_text("mine")
    with pytest.raises(UsageError, match=r"pairs\.yaml already exists"):
        write_project(tmp_path, "pairs")
    assert mine.read_text() == "mine"


def test_an_unknown_example_names_the_others(tmp_path):
    with pytest.raises(
        UsageError, match=r"unknown example 'word'; did you mean 'words'\?.*diabetes"
    ):
        write_project(tmp_path, "word")
    assert not list(tmp_path.iterdir())


def test_the_workflow_is_one_and_its_commands_exist(cli, tmp_path):
    write_project(tmp_path / "new", "digits-mlp", ci=True)
    path = tmp_path / "new" / ".github" / "workflows" / "edgesparse.yml"
    jobs = yaml.safe_load(path.read_text())["jobs"]
    commands = [step["run"] for step in jobs["deploy"]["steps"] if "run" in step]
    (deploy,) = [command for command in commands if "deploy" in command]
    _, name, pipeline, _, device = deploy.split()
    assert name == "deploy"
    assert load_pipeline(tmp_path / "new" / pipeline).spec.name == "digits-mlp"
    assert load_device(tmp_path / "new" / "devices" / f"{device}.yaml").spec.emulated
    for command in commands:
        assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0
    assert cli("compare", "--help").returncode == 0


@pytest.mark.slow
def test_a_wheel_has_the_examples_the_delegate_and_the_documentation(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    for kind, file in (
        ("pipelines", "words.yaml"),
        ("pipelines", "examples.py"),
        ("pipelines", "schema.json"),
        ("devices", f"{init.EMULATED}.yaml"),
    ):
        assert any(name.endswith(f"share/edgesparse/{kind}/{file}") for name in names)
    pages = {str(topic.path.relative_to(ROOT)) for topic in topics().values()}
    assert pages <= set(names)
    assert "none-any" in wheel.name, "one wheel serves all machines"
    for architecture in ARCHITECTURES:
        content = archive.read(f"edgesparse/delegate/lib/{file_name(architecture)}")
        assert content == library(architecture).read_bytes()
