"""Source text is read and never run, and what is too much to read is refused."""

import sys

import pytest

from edgesparse.spec.code import references
from edgesparse.spec.code.sources import module_source
from edgesparse.spec.errors import SpecError, UsageError
from edgesparse.spec.reading.load import load_pipeline
from tests.spec.reading.test_load import BASE

LOUD = "raise SystemExit('this ran')\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Packages that make themselves heard when they are imported, and one that is spread over two
    folders."""
    files = {
        "loud/__init__.py": LOUD,
        "loud/inner/__init__.py": LOUD,
        "loud/inner/models.py": LOUD + "def build():\n    pass\n",
        "loud_file.py": LOUD + "def build():\n    pass\n",
        "spread/one.py": "def build():\n    pass\n",
        "other/spread/deep/two.py": "def build():\n    pass\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "other")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "module", ["loud.inner.models", "loud_file", "spread.one", "spread.deep.two"]
)
def test_a_module_is_found_without_running_anything(project, module):
    before = set(sys.modules)
    found = references.find("models", None, f"{module}:build", project)
    assert found.source.name == module.split(".")[-1] + ".py"
    assert set(sys.modules) == before


def test_a_package_is_its_init(project):
    assert module_source("loud.inner", "").parent.name == "inner"
    assert module_source("json.decoder", "").name == "decoder.py"


@pytest.mark.parametrize(
    "ref",
    [
        "test.__main__:main", "this:s", "antigravity:fly", "loud:build", "loud.inner.none:build",
        "loud_file.below:build", "spread:build", "spread.deep:build", "sys:exit", "math:sin",
        "none:build", "a" + ".a" * 3000 + ":f", "a" * 5000 + ":f", "x:" + "f" * 5000,
        "a\0b.py:f", "\0:f", "a" * 5000 + ".py:f", "../" * 500 + "x.py:f", "loud/:f", ".py:f",
    ],
)  # fmt: skip
def test_whatever_a_reference_says_nothing_is_run(project, ref, capfd):
    path = project / "p.yaml"
    quoted = '"' + ref.replace("\0", "\\0") + '"'
    path.write_text(
        BASE.replace(
            "{name: mlp, args: {input_shape: [8, 8, 1], classes: 10}}", f"{{ref: {quoted}}}"
        )
    )
    before = set(sys.modules)
    with pytest.raises(SpecError) as error:
        load_pipeline(path)
    (problem,) = error.value.problems
    assert (problem.line, problem.column) == (4, 14)
    assert len(problem.message) < 300
    assert "\n" not in problem.message
    assert set(sys.modules) - before <= {"difflib"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n" * 2_000_000, "is larger than 500,000 bytes"),
        ("x = " + "1+" * 100_000 + "1\n", "nested too deeply"),
        ("x = " + "(" * 100_000 + ")" * 100_000, r"m.py(:1: too many nested| cannot be read)"),
        ("x = " + "-" * 200_000 + "1", "nested too deeply"),
        ("def f(:\n", "m.py:1: invalid syntax"),
        ("x = '\0'\n", "null bytes"),
        ("# -*- coding: nonsense -*-\n", "unknown encoding"),
    ],
    ids=["2 million lines", "1+1+...", "((((", "----1", "syntax", "nul", "encoding"],
)
def test_files_that_cannot_be_read_are_one_line(tmp_path, text, words):
    (tmp_path / "m.py").write_text(text)
    with pytest.raises(UsageError, match=words) as error:
        references.find("models", None, "m.py:build", tmp_path)
    assert "\n" not in str(error.value)


def test_a_file_is_parsed_once(tmp_path, monkeypatch):
    import ast

    (tmp_path / "m.py").write_text("def build(width):\n    pass\n")
    parsed = []
    real = ast.parse
    monkeypatch.setattr(ast, "parse", lambda text: parsed.append(text) or real(text))
    target = references.find("models", None, "m.py:build", tmp_path)
    references.check_arguments(target, {"width": 3})
    references.digest(target)
    assert len(parsed) == 1
