import json
import re
import signal
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from edgesparse.cli.main import main
from tests.conftest import ROOT, TINY, run_cli


def modules_of(*command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines[1:]}


def test_help_imports_nothing_heavy():
    found = modules_of("-m", "edgesparse", "--help")
    heavy = {"tensorflow", "numpy", "pydantic", "rich", "yaml", "asyncio"}
    assert not {name.partition(".")[0] for name in found} & heavy
    others = [name for name in found if not name.startswith("edgesparse")]
    assert len(others) <= 1.2 * len(modules_of("-c", "import click"))


def test_importing_the_package_imports_nothing_but_the_standard_library():
    found = {n.partition(".")[0] for n in modules_of("-c", "import edgesparse; dir(edgesparse)")}
    assert "edgesparse" in found
    assert not found & {"click", "tensorflow", "numpy", "pydantic", "rich", "yaml", "asyncio"}


COMMANDS = [
    "validate", "plan", "run", "deploy", "bench", "inspect", "sensitivity", "report", "schema",
    "init", "encode", "compare", "history", "export", "compress", "search", "completion", "docs",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(cli, command):
    done = cli(command, "--help")
    assert done.returncode == 0
    assert max(len(line) for line in done.stdout.splitlines()) <= 100


def test_the_help_lists_commands_and_exit_codes(cli):
    text = cli("--help").stdout
    assert all(command in text for command in COMMANDS)
    assert "3 a gate failed" in " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["deploy", "none.yaml"], "none.yaml: no such file"),
        (["plan", "none.yaml"], "none.yaml: no such file"),
        (["bench", "none.tflite"], "none.tflite: no such file"),
        (["bench", "none.tflite", "--device", "pie"], "no device file devices/pie.yaml"),
        (["bench", "none.tflite", "--device", "../x"], "no device file"),
        (["report"], "no runs yet"),
        (["report", "no-such-run"], "no runs yet"),
        (["nonsense"], "No such command"),
        (["deploy"], "Missing argument"),
        (["schema", "fruit"], "'fruit' is not one of"),
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(cli, arguments, message):
    done = cli(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_validate(cli, tmp_path):
    (tmp_path / "good.yaml").write_text(TINY)
    (tmp_path / "bad.yaml").write_text(TINY.replace("epochs: 1,", "epocs: 1,"))
    assert cli("validate", "good.yaml").stdout == "good.yaml: valid\n"
    done = cli("validate", "good.yaml", "bad.yaml")
    assert done.returncode == 2
    assert "bad.yaml:5:9: unknown key 'epocs'; did you mean 'epochs'?" in done.stderr
    found = json.loads(cli("validate", "bad.yaml", "--json").stdout)
    assert found["valid"] is False
    assert (found["problems"][0]["line"], found["problems"][0]["column"]) == (5, 9)


def test_an_unknown_variant_is_told(cli, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    done = cli("plan", "tiny.yaml", "--variant", "sparse-f23")
    assert done.returncode == 2
    assert "unknown variant 'sparse-f23'; did you mean 'sparse-f32'" in done.stderr


@pytest.mark.slow
def test_plan_of_a_new_project(cli, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    done = cli("plan", "tiny.yaml")
    assert done.returncode == 0
    assert "to run  train" in done.stdout
    assert "not run before" in done.stdout
    assert not (tmp_path / ".edgesparse").exists(), "a plan writes nothing"


def test_init_starts_a_project_that_is_valid(cli, tmp_path):
    done = cli("init", "my project")
    assert done.returncode == 0
    assert "cd 'my project' && edgesparse deploy pipelines/first.yaml" in done.stdout
    folder = tmp_path / "my project"
    files = [folder / "pipelines" / "first.yaml", folder / "devices" / "local.yaml"]
    assert cli("validate", *files).returncode == 0
    assert json.loads((folder / "pipelines" / "schema.json").read_text())
    files[0].write_text("mine")
    again = cli("init", "my project")
    assert again.returncode == 2
    assert "already exists" in again.stderr
    assert files[0].read_text() == "mine"


def test_two_device_files_with_one_name(cli, tmp_path):
    text = (ROOT / "devices" / "local.yaml").read_text()
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(text)
    (tmp_path / "tiny.yaml").write_text(TINY)
    done = cli("deploy", "tiny.yaml", "--device", "a.yaml", "--device", "b.yaml")
    assert done.returncode == 2
    assert "two device files are named 'local'" in done.stderr


@pytest.mark.parametrize("kind", ["pipeline", "device"])
def test_schema_describes_every_key(cli, kind):
    found = json.loads(cli("schema", kind).stdout)
    for model in [found, *found["$defs"].values()]:
        for name, key in model.get("properties", {}).items():
            assert key.get("description"), f"{model['title']}.{name}"


def test_schema_takes_variables_and_groups(cli):
    found = json.loads(cli("schema", "device").stdout)
    assert [choice["$ref"] for choice in found["anyOf"]] == ["#/$defs/Device", "#/$defs/Group"]
    host = found["$defs"]["Ssh"]["properties"]["host"]["pattern"]
    assert re.search(host, "${PI_HOST:-raspberrypi.local}")
    assert re.search(host, "raspberrypi.local")
    assert not re.search(host, "-oProxyCommand=x")


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m edgesparse schema pipeline | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.stdout == "{\n"


def test_a_full_disk_is_told_in_one_line():
    command = f"{sys.executable} -m edgesparse schema pipeline > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_cli_is_not_the_shell(tmp_path):
    done = run_cli("validate", "$(touch x).yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert not (tmp_path / "x").exists()


_INTERRUPTED = """
import os, runpy, signal, sys
class Interrupt:
    def find_spec(name, *_):
        if name == sys.argv[-1]:
            sys.argv.pop()
            os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C while it is imported.
sys.meta_path.insert(0, Interrupt)
runpy.run_module("edgesparse", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["click", "edgesparse.cli.device", "edgesparse.project", "pydantic_core", "numpy"]
)
def test_ctrl_c_while_it_starts_is_no_traceback(tmp_path, module):
    command = [sys.executable, "-c", _INTERRUPTED, "report", module]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        # A shell that runs the tests in the background ignores Ctrl-C, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr == "" or done.stderr.startswith("interrupted; finished stages are kept")


def test_an_earlier_name_of_a_command_is_an_error_that_names_the_new_one(cli):
    done = cli("sweep", "p.yaml")
    assert done.returncode == 2
    assert "'sweep' is called 'search': edgesparse search" in done.stderr
    assert ShellComplete(main, {}, "edgesparse", "").get_completions(["sweep"], "") is not None
