import pytest

from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.safe.programs import asked


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def made(text):
        (tmp_path / "said.py").write_text(text)
        return asked("said", ["a", 1], "the file", 20.0)

    return made


def test_the_last_line_counts(module):
    text = "import sys\nprint('noise')\nprint('{\"given\": \"%s\"}' % ' '.join(sys.argv[1:]))"
    assert module(text) == {"given": "a 1"}


def test_what_is_wrong_and_what_crashes_is_one_line(module):
    with pytest.raises(UsageError, match=r"^no good\\x1b$"):
        module("import json\nprint(json.dumps({'wrong': 'no good\\x1b'}))")
    for text in ("import os\nos.abort()", "print('[]')", "print()"):
        with pytest.raises(EdgesparseError, match="the file: its runtime crashed"):
            module(text)
    with pytest.raises(EdgesparseError, match="took longer"):
        asked("http.server", ["--bind", "127.0.0.1", "0"], "the file", 0.5)
