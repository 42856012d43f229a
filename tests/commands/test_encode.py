"""A file that is stored anew: nothing of it is lost, whatever happens."""

import pytest

from edgesparse import Project
from edgesparse.spec.errors import UsageError
from edgesparse.tflite.format.inspect import inspect
from tests.conftest import HERE
from tests.tools.files import labels, no_room

pytestmark = pytest.mark.slow


def test_what_is_appended_and_the_only_copy_are_kept(tflite_files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.yaml").write_text(HERE)
    model, out = tmp_path / "m.tflite", tmp_path / "out.tflite"
    content = tflite_files["sparse"].read_bytes() + labels()
    model.write_bytes(content)
    with Project(tmp_path) as project:
        done = project.encode(model, out, "here")
        stored = out.read_bytes()
        assert stored.endswith(labels())
        assert done.bytes_after == len(stored)
        assert inspect(stored).zeros == inspect(content).zeros
        with no_room(10_000), pytest.raises(UsageError, match="cannot be written: File too large"):
            project.encode(model, model, "here")
        assert model.read_bytes() == content
        project.encode(model, model, "here")
        assert model.read_bytes() == stored
        project.encode(model, model, "here")
        assert model.read_bytes() == stored
    assert not list(tmp_path.glob("*.part"))
