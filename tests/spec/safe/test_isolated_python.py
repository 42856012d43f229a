import subprocess

import pytest

from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.isolated_python import import_path, python, run_json_module


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def made(text):
        (tmp_path / "said.py").write_text(text)
        return run_json_module("said", ["a", 1], "the file", 20.0)

    return made


def test_the_last_line_counts(module):
    text = "import sys\nprint('noise')\nprint('{\"given\": \"%s\"}' % ' '.join(sys.argv[1:]))"
    assert module(text) == {"given": "a 1"}


def test_progress_comes_before_the_reply(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "slow.py").write_text(
        "from edgesparse.spec.safe.isolated_python import print_json_reply, print_progress\n"
        "print('half a line', end='')\nprint_progress(0.5)\nprint_progress(7)\n"
        "print_json_reply(lambda: {'done': True})"
    )
    shares = []
    assert run_json_module("slow", [], "the file", 20.0, progress=shares.append) == {"done": True}
    assert shares == [0.5, 1.0]


def test_what_is_wrong_and_what_crashes_is_one_line(module):
    with pytest.raises(UsageError, match=r"^no good\\x1b$"):
        module("import json\nprint(json.dumps({'wrong': 'no good\\x1b'}))")
    for text in ("import os\nos.abort()", "print('[]')", "print()"):
        with pytest.raises(EdgesparseError, match="the file: its runtime crashed"):
            module(text)
    with pytest.raises(EdgesparseError, match="took longer"):
        run_json_module("http.server", ["--bind", "127.0.0.1", "0"], "the file", 0.5)


def test_modules_in_the_current_folder_come_last(tmp_path, monkeypatch):
    """Whoever has the folder in sys.path can still import what is in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("json", "runpy", "numpy", "mine"):
        (tmp_path / f"{name}.py").write_text(f"print({name!r})\n")
    assert str(tmp_path.resolve()) not in import_path()
    start = "import json, runpy, numpy, mine"
    for place in ("", str(tmp_path)):
        with monkeypatch.context() as patched:
            patched.syspath_prepend(place)
            done = subprocess.run(python(start), capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("mine\n", "")
    done = subprocess.run(python(start), capture_output=True, text=True)
    assert "No module named 'mine'" in done.stderr
