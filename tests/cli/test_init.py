"""What shells complete, asked of the shells themselves."""

import contextlib
import os
import pty
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


def test_on_a_terminal_what_is_missing_is_asked_for(tmp_path):
    (tmp_path / "train.py").write_text("model = 1\n")
    (tmp_path / "rows.csv").write_text("a,b,price\n1,2,3\n")
    command = [sys.executable, "-m", "edgesparse", "init", "--model", "train.py"]
    master, slave = pty.openpty()
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=slave, stdout=slave, stderr=slave, close_fds=True
    ) as program:
        os.close(slave)
        os.write(master, b"rows.csv\n\npi@board\n")
        shown = b""
        with contextlib.suppress(OSError):  # At its end a terminal raises.
            while part := os.read(master, 4096):
                shown += part
        os.close(master)
    text = shown.decode()
    assert program.returncode == 2
    assert "column to predict [price]:" in text
    assert "device (USER@HOST, or local) [local]:" in text
    assert "train.py has no function that returns its model" in text


def test_without_a_terminal_what_is_missing_is_an_error(cli, tmp_path):
    for arguments, message in [
        (["--model", "m.keras"], "--model needs --data"),
        ([".", "--device", "pi@board"], "--data, --target and --device need --model"),
        ([], "name a folder, or start from your model"),
    ]:
        done = cli("init", *arguments)
        assert (done.returncode, message in done.stderr) == (2, True)


def test_init_starts_from_an_example_or_a_model(cli):
    done = cli("init", ".", "--example", "digits", "--model", "m.keras")
    assert done.returncode == 2
    assert "choose --example or --model" in done.stderr
