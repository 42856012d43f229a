"""What a person sees of `inspect` and `sensitivity`."""

import json

import pytest

from tests.conftest import HERE, TINY


@pytest.fixture
def here(tmp_path):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.yaml").write_text(HERE)
    return tmp_path


def test_inspect_shows_every_weight(cli, tflite_files):
    done = cli("inspect", tflite_files["sparse"])
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all(len(line) <= 100 for line in lines)
    (wide,) = [line.split() for line in lines if line.startswith("wide")]
    assert wide[1:4] == ["dense", "512x512", "f32"]
    assert wide[5:7] == ["random", "densify"]
    assert "x the bound" in done.stdout


def test_inspect_for_a_device_says_what_pays(cli, here, tflite_files):
    done = cli("inspect", tflite_files["sparse"], "--device", "here")
    assert done.returncode == 0, done.stderr
    assert "here | ai-edge-litert 2.1.6" in done.stdout
    assert (
        "no speed-up: wide: ai-edge-litert 2.1.6 converts it to dense at load time" in done.stdout
    )
    found = json.loads(cli("inspect", tflite_files["sparse"], "--device", "here", "--json").stdout)
    assert {t["name"] for t in found["tensors"]} == {"wide", "classifier"}
    (explained,) = found["explained"].values()
    assert {e["name"]: e["exploited"] for e in explained} == {"wide": False, "classifier": False}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.tflite"], "none.tflite: no such file"),
        (["devices/here.yaml"], "is not a .tflite model"),
    ],
)
def test_inspect_of_something_else(cli, here, arguments, said):
    done = cli("inspect", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_sensitivity_prints_saves_and_proposes(cli, here, shared_store):
    (here / "tiny.yaml").write_text(TINY)
    command = ["sensitivity", "tiny.yaml", "--device", "here", "--level", "0.5", "--level", "0.9"]
    done = cli(*command, "--max-accuracy-drop", "0.1")
    assert done.returncode == 0, done.stderr
    assert "sparse-f32: " in done.stdout
    titles = next(line for line in done.stdout.splitlines() if line.startswith("layer"))
    assert titles.split() == ["layer", "pattern", "weights", "50%", "90%", "proposed"]
    assert "dense_1    block-1x4" in done.stdout
    saved = here / ".edgesparse" / "sensitivity" / "tiny-sparse-f32.json"
    assert f"saved in {saved.relative_to(here)}" in done.stdout
    found = json.loads(saved.read_text())
    assert found["levels"] == [0.5, 0.9]
    assert [layer["name"] for layer in found["layers"]] == ["dense_1", "classifier"]
    again = cli(*command, "--max-accuracy-drop", "0.1", "--json")
    assert json.loads(again.stdout) == found
    assert "sensitivity sparse-f32: cached" in again.stderr
    wrong = cli("sensitivity", "tiny.yaml", "--device", "here", "--variant", "dense-f32")
    assert wrong.returncode == 2
    assert "variant dense-f32 is not pruned by magnitude" in wrong.stderr
