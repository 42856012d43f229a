"""`edgesparse bench` on good, bad and deadly files."""

import json
import os

import pytest

from edgesparse.tflite.format.minimal_model import tiny_model
from tests.conftest import HERE, run_cli
from tests.report.test_hostile import CONTROLS


def bench(folder, *arguments):
    return run_cli("bench", *arguments, "--device", "local", "--quick", cwd=folder)


def one_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    assert "Traceback" not in text
    return len(lines) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"name: a pipeline, not a model\n" * 10, "is not a .tflite model"),
        ("half", "is truncated or damaged"),
        ("head", "is truncated or damaged"),
    ],
)
def test_what_is_no_model_ends_in_one_line(tmp_path, tflite_files, content, message):
    path = tmp_path / "m.tflite"
    whole = tflite_files["dense"].read_bytes()
    if isinstance(content, str):
        content = whole[: len(whole) // 2] if content == "half" else whole[:200]
    if content is not None:
        path.write_bytes(content)
    done = bench(tmp_path, path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert one_line(done.stderr)
    assert message in done.stderr


@pytest.mark.slow
def test_any_model_is_measured(tmp_path, tflite_files):
    done = bench(tmp_path, tflite_files["dense"], tflite_files["sparse"], "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {r["variant"] for r in rows} == {"dense", "sparse"}
    assert all(r["latency_ms"]["rounds"] == 2 for r in rows)
    assert {r["speedup"]["baseline"] for r in rows} == {"dense"}
    assert rows[0]["metrics"] == []


@pytest.mark.slow
def test_a_model_that_crashes_its_runtime_is_a_failed_row(tmp_path, tflite_files, crashing_model):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "local.yaml").write_text(
        "name: local\nconnect: {local: {}}\nworkdir: work\nruntimes: [ai-edge-litert]\n"
    )
    done = bench(tmp_path, tflite_files["dense"], crashing_model, tflite_files["int8"], "--json")
    assert done.returncode == 1
    rows = {r["variant"]: r for r in json.loads(done.stdout)["rows"]}
    assert rows["crash"]["status"] == "failed"
    assert "SIGSEGV" in rows["crash"]["error"]
    assert rows["dense"]["status"] == rows["int8"]["status"] == "ok"


@pytest.mark.slow
def test_files_keep_apart_whatever_they_are_called(tmp_path):
    """One stem in two folders, a long path, control characters, bytes that are no text."""
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.yaml").write_text(HERE)
    deep = tmp_path.joinpath(*["d" * 100] * 8)
    names = ["a/model", "b/model", f"{deep}/model", f"{'m' * 200}", "\x1b]0;owned\x07", "m\udcff"]
    paths = [os.path.join(tmp_path, f"{name}.tflite") for name in names]
    for number, path in enumerate(paths):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(tiny_model() + bytes([number]))
    done = run_cli("bench", *paths, paths[0], "--device", "here", "--quick", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not CONTROLS.search(done.stdout + done.stderr)
    told = json.loads(run_cli("report", "--json", cwd=tmp_path).stdout)
    rows = {row["variant"]: row["model"]["sha256"] for row in told["rows"]}
    assert list(rows)[:2] == ["model", "b/model"]
    assert len(rows) == len(set(rows.values())) == len(paths)
    assert max(map(len, rows)) <= 48
