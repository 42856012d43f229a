"""`edgesparse device` and `edgesparse emulator`, as typed."""

import json
import shutil

import pytest

from tests.conftest import HERE, ROOT


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.yaml").write_text(HERE)
    return tmp_path


def test_the_shipped_devices_are_listed(cli, tmp_path):
    shutil.copytree(ROOT / "devices", tmp_path / "devices")
    lines = cli("device", "list").stdout.splitlines()
    assert all(len(line) <= 100 for line in lines)
    ways = {line.split()[0]: line.split()[1] for line in lines}
    assert ways["local"] == "local"
    assert ways["pi"] == "ssh"
    assert ways["pi5-emulated"] == "emulator"
    assert ways["emulated"] == "group"
    assert {row["name"] for row in json.loads(cli("device", "list", "--json").stdout)} == set(ways)


def test_a_file_that_is_invalid_is_listed_as_such(cli, folder):
    (folder / "devices" / "odd.yaml").write_text("name: odd\n")
    done = cli("device", "list")
    assert done.returncode == 0
    assert "odd   invalid" in done.stdout


def test_check_says_what_is_there(cli, folder):
    done = cli("device", "check", "here")
    assert done.returncode == 0, done.stdout
    assert "a trial model ran" in done.stdout
    found = json.loads(cli("device", "check", "here", "--json").stdout)
    assert {"connection", "python", "workdir", "ai-edge-litert"} <= {f["subject"] for f in found}


def test_check_of_what_is_missing_fails(cli, folder):
    text = HERE.replace("[ai-edge-litert]", "[{name: ai-edge-litert, version: 0.0.1}]")
    (folder / "devices" / "here.yaml").write_text(text)
    done = cli("device", "check", "here")
    assert done.returncode == 1
    assert "MISSING" in done.stdout


def test_setup_of_a_local_device_has_nothing_to_do(cli, folder):
    done = cli("device", "setup", "here")
    assert done.returncode == 0
    assert "nothing to set up" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("device", "check", "her"), 2, "did you mean 'here'?"),
        (("device", "check", "lab"), 2, "lab is a group of 2 devices; name a single device"),
        (("device", "rollback", "here", "../x"), 2, "invalid pipeline name"),
        (("device", "rollback", "here", "digits"), 1, "no releases yet"),
        (("device", "releases", "here", "digits"), 1, "no releases yet"),
        (("emulator", "up", "here"), 2, "is not emulated"),
        (("emulator", "down", "here"), 2, "is not emulated"),
        (("deploy", "x.yaml", "--device", "gone-group"), 2, "devices/gone.yaml"),
    ],
)
def test_mistakes_are_one_line(cli, folder, arguments, code, words):
    (folder / "devices" / "lab.yaml").write_text("name: lab\ndevices: [here, here-too]\n")
    (folder / "devices" / "here-too.yaml").write_text(HERE.replace("name: here", "name: here-too"))
    (folder / "devices" / "gone-group.yaml").write_text("name: gone-group\ndevices: [gone]\n")
    (folder / "x.yaml").write_text((ROOT / "pipelines" / "digits.yaml").read_text())
    done = cli(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_up(cli, tmp_path):
    done = cli("emulator", "status", XDG_CACHE_HOME=str(tmp_path))
    assert done.stdout == "no emulated device is running\n"
    about = json.loads(cli("emulator", "status", "--json", XDG_CACHE_HOME=str(tmp_path)).stdout)
    assert about == {"machines": [], "images": []}


def test_a_machine_that_is_not_up_needs_no_shutting_down(cli, tmp_path):
    shutil.copytree(ROOT / "devices", tmp_path / "devices")
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    done = cli("emulator", "down", "pi5-emulated", **cache)
    assert done.stdout == "pi5-emulated: was not running\n"
    said = json.loads(cli("emulator", "down", "pi5-emulated", "--json", **cache).stdout)
    assert said == {"name": "pi5-emulated", "was_up": False}


def test_an_emulator_without_qemu_names_the_package(cli, tmp_path):
    shutil.copytree(ROOT / "devices", tmp_path / "devices")
    (tmp_path / "bin").mkdir()
    done = cli(
        "emulator", "build", "pi5-emulated", PATH=str(tmp_path / "bin"),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 1
    assert "sudo apt-get install" in done.stderr
    assert "qemu-system-arm" in done.stderr
