"""The same words arrive in every login shell."""

import shutil
import subprocess

import pytest

from edgesparse.devices.transport import shell
from tests.conftest import require

HARD = ["printf", "%s|", "a b", "it's", '"$HOME"', "back\\slash", "new\nline", "!x", "ü€", "~", "*"]


@pytest.mark.parametrize("login_shell", ["sh", "bash", "fish"])
def test_arguments_arrive_as_they_stand(login_shell):
    require(shutil.which(login_shell) is not None, f"the shell {login_shell}")
    command = shell.remote_command(shell.script_of(HARD))
    done = subprocess.run([login_shell, "-c", command], capture_output=True, check=True)
    assert done.stdout.decode() == "|".join(HARD[2:]) + "|"


def test_output_of_start_up_files_is_separated():
    text, mark = shell.marked("echo own; echo error >&2")
    done = subprocess.run(
        ["sh", "-c", f"echo noise; echo noise >&2; {text}"], capture_output=True, text=True
    )
    assert shell.output_after_mark(done.stdout, mark) == "own\n"
    assert shell.output_after_mark(done.stderr, mark) == "error\n"
    assert shell.output_after_mark("noise\n", mark) is None
    assert shell.marked("x")[1] != mark
