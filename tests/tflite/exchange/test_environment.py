"""Environments of converters: their names, what a user reads, and an installation that fails."""

import sys

import pytest

from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.tflite.exchange.environment import ENVIRONMENTS, Environment, build


def test_a_missing_converter_is_an_error_with_its_size_and_what_to_type(cli, tmp_path, monkeypatch):
    (tmp_path / "m.onnx").write_bytes(b"x")
    done = cli("bench", "m.onnx", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 2
    words = "m.onnx needs a converter that is not installed, onnx2tf (36 MB to download, 170 MB"
    assert words in done.stderr
    assert "type: edgesparse setup onnx" in done.stderr
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match=r"litert-torch \(440 MB to download, 1.9 GB on the disk"):
        ENVIRONMENTS["torch"].require(tmp_path / "m.pt2")


def test_every_package_is_pinned_and_the_folder_changes_with_them():
    for kind, environment in ENVIRONMENTS.items():
        lines = environment.requirements.split("\n")
        assert all("==" in line for line in lines if line)
        assert environment.folder.name.startswith(f"{kind}-")
    assert len({e.folder.name for e in ENVIRONMENTS.values()}) == 2
    assert ENVIRONMENTS["torch"].imported == []
    assert ENVIRONMENTS["onnx"].imported


@pytest.mark.slow
def test_an_installation_that_fails_leaves_nothing_and_names_the_cause(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # No index, whatever the user has configured: no uv, and pip without its settings.
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    steps = []
    environment = Environment("torch", "litert-torch", "torch==2.13.0\n", 1, 1, 1, False)
    with pytest.raises(EdgesparseError, match=r"no torch 2.13.0 for CPUs .*PIP_EXTRA_INDEX_URL"):
        build(environment, lambda share, text: steps.append(text))
    other = Environment("onnx", "onnx2tf", "no-such-package==1\n", 1, 1, 1, True)
    with pytest.raises(EdgesparseError, match=r"onnx2tf cannot be installed: ERROR: .*no-such"):
        build(other, lambda share, text: steps.append(text))
    assert steps[0] == "virtual environment"
    assert [path.suffix for path in (tmp_path / "edgesparse/converters").iterdir()] == [".lock"] * 2
    large = Environment("onnx", "onnx2tf", "", 1, 10**9, 1, True)
    with pytest.raises(EdgesparseError, match="MB free; onnx2tf needs 1000000001 MB"):
        build(large, lambda share, text: None)
    empty = Environment("onnx", "nothing", "", 1, 1, 1, True)
    assert build(empty, lambda share, text: None)
    assert not build(empty, lambda share, text: None)
    assert empty.python.exists()
    assert sys.executable != str(empty.python)
