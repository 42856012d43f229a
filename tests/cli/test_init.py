"""What shells complete, asked of the shells themselves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HERE, TINY, require


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "greenhouse.yaml").write_text(HERE)
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / ".edgesparse" / "runs" / "20260101-tiny").mkdir(parents=True)
    (tmp_path / ".edgesparse" / "runs" / "20260101-tiny" / "results.json").touch()
    return tmp_path


LINES = [
    ("edgesparse dep", "deploy"),
    ("edgesparse deploy tiny.yaml --device gre", "greenhouse"),
    ("edgesparse deploy tiny.yaml --variant sp", "sparse-f32"),
    ("edgesparse report 2026", "20260101-tiny"),
]


def run(shell, script, folder):
    # The command as it is installed: its name is what shells know.
    installed = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{installed}:{os.environ['PATH']}"}
    environment["HOME"] = str(folder)
    done = subprocess.run(
        [shell, "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(("line", "offered"), LINES)
def test_fish_completes(folder, line, offered):
    require(shutil.which("fish") is not None, "fish")
    script = f"edgesparse completion fish | source; complete -C '{line}'"
    assert offered in run("fish", script, folder)


@pytest.mark.parametrize(("line", "offered"), LINES)
def test_bash_completes(folder, line, offered):
    words = line.split()
    script = (
        'eval "$(edgesparse completion bash)"\n'
        f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n"
        "_edgesparse_completion edgesparse\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert offered in run("bash", script, folder)


def test_init_lists_examples(cli, tmp_path):
    done = cli("init", ".", "--example", "list")
    assert done.returncode == 0
    assert {"digits", "words", "lasso"} <= set(done.stdout.split())
    assert not Path(tmp_path, "pipelines").exists()
