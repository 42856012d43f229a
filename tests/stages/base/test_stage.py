"""What every stage has, and what depends on it."""

from dataclasses import fields
from importlib import import_module

import pytest

from edgesparse.stages import NAMES, kind
from edgesparse.stages.base.artifacts import write_json
from edgesparse.stages.base.stage import Stage, StageContext, StageKind
from tests.conftest import ROOT

FOLDER = ROOT / "edgesparse" / "stages"


def test_every_file_is_a_stage_and_every_stage_has_a_file():
    files = {file.stem for file in FOLDER.glob("*.py")} - {"__init__", "stage"}
    assert files == {name.replace("-", "_") for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_says_all_of_itself(name):
    result = kind(name)
    assert isinstance(result, StageKind)
    assert result.name == name
    assert result.version >= 1
    module = import_module(f"edgesparse.stages.{name.replace('-', '_')}")
    assert module.key_inputs.__doc__.startswith("Return what the result depends on")
    assert module.run.__doc__
    assert result.run is module.run


def test_what_tensorflow_or_a_users_code_may_crash_runs_elsewhere():
    assert {name for name in NAMES if not kind(name).in_child} == {"compile", "verify"}
    for name in NAMES:
        if "tensorflow" in kind(name).libraries:
            assert kind(name).in_child


STAGE = Stage("train", "train", ("a",), 1, {"x": 1}, {"model": "k"}, {"numpy": "1"})


def test_the_key_covers_all_that_shapes_the_result_and_no_more():
    from dataclasses import replace

    same = {"label": "train b", "variants": ("a", "b")}
    other = {
        "name": "verify",
        "version": 2,
        "spec": {"x": 2},
        "inputs": {"model": "l"},
        "libraries": {"numpy": "2"},
    }
    assert same.keys() | other.keys() == {field.name for field in fields(Stage)}
    for name, value in same.items():
        assert replace(STAGE, **{name: value}).key == STAGE.key
    for name, value in other.items():
        assert replace(STAGE, **{name: value}).key != STAGE.key


def test_notes_of_the_steps_before(tmp_path):
    write_json(tmp_path / "notes.json", ["half of it is gone"])
    (tmp_path / "none").mkdir()
    inputs = {"model": tmp_path, "sparsify": tmp_path / "none"}
    context = StageContext(STAGE, None, inputs, tmp_path, lambda *_: None, lambda _: None)
    assert context.notes_of("model") == ["half of it is gone"]
    assert context.notes_of("sparsify") == []
    assert context.notes_of("absent") == []
