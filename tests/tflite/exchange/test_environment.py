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


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_an_earlier_python_is_an_error_before_anything_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    later = Environment("torch", "litert-torch", "", 1, 1, 1, False, (9, 11))
    message = r"litert-torch needs Python 9.11 or later, and this is 3\.[0-9]+; install"
    with pytest.raises(UsageError, match=message):
        build(later, lambda share, text: None)
    with pytest.raises(UsageError, match=message):
        later.require(tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())
    assert ENVIRONMENTS["torch"].least_python == (3, 11)  # That of jax 0.10.


def test_an_environment_without_its_python_is_made_again(tmp_path, monkeypatch):
    """A shell script in place of Python makes it, to be quick."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # No uv.
    fill = (
        '/bin/mkdir -p "$4/bin"; echo "#!/bin/sh" > "$4/bin/python"; /bin/chmod +x "$4/bin/python"'
    )
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", fill))
    environment = Environment("onnx", "onnx2tf", "", 1, 1, 1, True)
    assert build(environment, lambda share, text: None)
    assert not build(environment, lambda share, text: None)
    environment.python.unlink()
    environment.python.symlink_to(tmp_path / "removed")
    assert build(environment, lambda share, text: None)
    assert environment.python.exists()


def test_the_end_of_what_a_failed_step_prints_is_its_cause(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    text = "echo ensurepip is not available; echo; echo '    apt install python3-venv'; exit 1"
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", text))
    environment = Environment("onnx", "onnx2tf", "", 1, 1, 1, True)
    with pytest.raises(EdgesparseError, match=r"installed: ensurepip is not .* python3-venv$"):
        build(environment, lambda share, text: None)


@pytest.mark.slow
@pytest.mark.full
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
