"""What keys were made of is compared where it is loaded; the user's code goes along."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from edgesparse.graph.digests import inputs_of, user_code
from edgesparse.spec.code.run_inputs import InputChanged
from edgesparse.spec.reading.load import load_pipeline

TEXT = """
name: p
data: {ref: "mine.py:load", args: {path: d.npz, images: pictures}}
model: {ref: "mine.py:build", weights: w.h5}
variants: {a: {}}
"""


@pytest.fixture
def folder(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 2)))
    (tmp_path / "pictures" / "cats").mkdir(parents=True)
    (tmp_path / "pictures" / "cats" / "1.png").write_bytes(b"1")
    (tmp_path / "w.h5").write_bytes(b"w")
    (tmp_path / "beside.py").write_text("VALUE = 1\n")
    (tmp_path / "parts" / "deep").mkdir(parents=True)
    (tmp_path / "parts" / "__init__.py").write_text("from .inner import INNER\n")
    (tmp_path / "parts" / "inner.py").write_text("INNER = 2\n")
    (tmp_path / "parts" / "deep" / "there.py").write_text("from ..inner import INNER as DEEP\n")
    (tmp_path / "mine.py").write_text(
        "from beside import VALUE\nimport parts.deep.there\n"
        "def load(path, images):\n    pass\n"
        "def build():\n    import parts\n    return VALUE, parts.INNER, parts.deep.there.DEEP\n"
    )
    (tmp_path / "p.yaml").write_text(TEXT)
    return tmp_path


def test_all_that_is_referred_to_is_in_the_keys(folder):
    inputs = inputs_of(load_pipeline(folder / "p.yaml"))
    code = {"mine.py", "beside.py", "parts/__init__.py", "parts/inner.py", "parts/deep/there.py"}
    assert set(inputs.code) == {str(folder / name) for name in code}
    files = {"d.npz", "pictures/cats/1.png", "w.h5"}
    assert set(inputs.files) == {str(folder / name) for name in files}
    assert not inputs.installed
    before = user_code(inputs)
    (folder / "parts" / "inner.py").write_text("INNER = 3\n")
    assert user_code(inputs_of(load_pipeline(folder / "p.yaml"))) != before


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("d.npz", lambda p: p.write_bytes(b"x" * p.stat().st_size)),
        ("w.h5", lambda p: p.write_bytes(b"W")),
        ("pictures/cats/1.png", lambda p: p.unlink()),
        ("pictures/cats/2.png", lambda p: p.write_bytes(b"2")),
    ],
)
def test_a_change_of_data_names_the_file(folder, name, change):
    inputs = inputs_of(load_pipeline(folder / "p.yaml"))
    inputs.check()
    change(folder / name)
    with pytest.raises(InputChanged, match=name):
        inputs.check()


def test_a_change_of_code_names_the_file(folder, monkeypatch):
    inputs = inputs_of(load_pipeline(folder / "p.yaml"))
    (folder / "beside.py").write_text("VALUE = 7\n")
    inputs.check()  # It is imported as it was.
    inputs.check_task_code()
    inputs.digests["task"] = "of the user's own"
    with pytest.raises(InputChanged, match=r"beside\.py"):
        inputs.check_task_code()
    (folder / "p.yaml").write_text(
        "name: p\ndata: {name: digits, args: {input_shape: [8, 8, 1]}}\n"
        "model: {ref: 'installed.parts:build'}\nvariants: {a: {}}\n"
    )
    (folder / "installed").mkdir()
    (folder / "installed" / "parts.py").write_text("def build():\n    pass\n")
    monkeypatch.syspath_prepend(str(folder))
    inputs = inputs_of(load_pipeline(folder / "p.yaml"))
    inputs.check()
    (folder / "installed" / "parts.py").write_text("def build():\n    return 1\n")
    with pytest.raises(InputChanged, match=r"parts\.py"):
        inputs.check()


@pytest.mark.parametrize("there", ["edited", "gone"])
def test_code_is_imported_as_it_was_when_keys_were_made(folder, tmp_path_factory, there):
    """By a process of its own, in another folder, as on another machine."""
    inputs = inputs_of(load_pipeline(folder / "p.yaml"))
    for path in [*folder.glob("*.py"), *folder.glob("parts/**/*.py")]:
        if there == "edited":
            path.write_text(path.read_text().replace("1", "10").replace("2", "20"))
        else:
            path.unlink()
    script = f"""
        import inspect
        from pathlib import Path
        from edgesparse.spec.code import snapshot, references
        snapshot.carry({inputs.code!r})
        target = references.find("models", None, "mine.py:build", Path({str(folder)!r}))
        print(references.call(target, {{}}, {{}}), inspect.getsource(references.load(target)))
        print(references.load(target).__globals__["__file__"])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("(1, 2, 2) def build():"), done.stderr
    assert done.stdout.splitlines()[-1] == str(folder / "mine.py")
    assert not list(folder.rglob("*.pyc"))
