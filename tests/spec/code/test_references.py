import sys

import pytest

from edgesparse.spec.code import references
from edgesparse.spec.errors import UsageError
from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "neighbour", raising=False)
    (tmp_path / "mine.py").write_text(
        "import neighbour\n\ndef build(width, *, depth=2):\n    return (width, depth)\n"
    )
    (tmp_path / "neighbour.py").write_text("value = 1\n")
    return tmp_path


def find(folder, ref="mine.py:build"):
    return references.find("models", None, ref, folder)


def test_a_file_reference_is_called_with_what_it_takes(folder):
    assert references.call(find(folder), {"width": 3}, {"depth": 5, "other": 1}) == (3, 5)


def test_a_module_reference(folder):
    target = references.find("models", None, "edgesparse.spec.errors:did_you_mean", folder)
    assert references.load(target)("a", ["a"]) == "; did you mean 'a'?"


def test_builtins_are_the_files_of_their_room():
    assert {"mlp", "mobilenet_v1"} <= set(references.builtin_names("models"))
    formats = set(references.builtin_names("data"))
    assert {"digits", "npz", "image-folder"} <= formats
    # Modules that formats share are no formats.
    assert formats.isdisjoint({"raw", "splits", "transforms", "dynamic-shapes"})
    with pytest.raises(UsageError, match="unknown data 'splits'"):
        references.find("data", "splits", None, ROOT)


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("mine.py", "invalid reference"),
        ("mine.py:not there", "invalid reference"),
        ("mine.py:biuld", "did you mean 'build'"),
        ("your.py:build", "no file"),
        ("a b:c", "invalid reference"),
        ("os.nothing_here:c", "cannot be imported|no Python module"),
    ],
)
def test_clear_errors(folder, ref, message):
    with pytest.raises(UsageError, match=message):
        find(folder, ref)


def test_a_file_with_a_syntax_error(folder):
    (folder / "mine.py").write_text("def build(:\n")
    with pytest.raises(UsageError, match=r"mine.py:1"):
        find(folder)


def test_a_file_that_fails_to_import(folder):
    target = find(folder)
    (folder / "neighbour.py").write_text("raise RuntimeError('broken')\n")
    with pytest.raises(UsageError, match=r"cannot be imported: RuntimeError: broken"):
        references.load(target)


def test_arguments_are_checked_without_importing(folder):
    found = references.check_arguments(find(folder), {"widht": 1})
    assert found == [
        ("widht", "mine.py:build has no argument 'widht'; did you mean 'width'?"),
        (None, "mine.py:build requires the argument 'width'"),
    ]


def test_digest_follows_local_imports(folder):
    before = references.digest(find(folder))
    (folder / "unrelated.py").write_text("x = 1\n")
    assert references.digest(find(folder)) == before
    (folder / "neighbour.py").write_text("value = 2\n")
    assert references.digest(find(folder)) != before
    source = find(folder).source
    source.write_text("import json, numpy\n" + source.read_text())
    before = references.digest(find(folder))
    for installed in ("json", "numpy"):  # Files of those names replace nothing.
        (folder / f"{installed}.py").write_text("x = 1\n")
    assert references.digest(find(folder)) == before
