"""A variant as a folder that runs by itself."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import edgesparse
from edgesparse.measure.results import write_results
from tests.conftest import HERE, TINY
from tests.tools.files import no_room

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_store")]


def test_an_exported_variant_runs_where_nothing_of_ours_is(cli, tmp_path):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.yaml").write_text(HERE)
    (tmp_path / "tiny.yaml").write_text(TINY)
    done = cli("deploy", "tiny.yaml", "--device", "here", "--quick", "--json")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)["run"]
    kept = tmp_path / ".edgesparse" / "runs" / run / "models"
    names = sorted(path.name for path in kept.glob("*.tflite"))
    assert names == ["dense-f32-ai-edge-litert.tflite", "sparse-f32-ai-edge-litert.tflite"]
    assert f"models: .edgesparse/runs/{run}/models" in done.stderr
    written = cli("export", "sparse-f32", "-o", "out")
    assert written.returncode == 0, written.stderr
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "camera.py", "edgesparse_model.py", "labels.json", "main.cc", "manifest.json",
        "model.tflite", "predict.py", "raw.py", "transform.json",
    ]  # fmt: skip
    assert (out / "model.tflite").read_bytes() == (kept / names[1]).read_bytes()
    with no_room(1000):
        full = cli("export", "sparse-f32", "-o", "full")
    assert (full.returncode, "full: cannot be written: File too" in full.stderr) == (2, True)
    assert not list(tmp_path.glob("full*"))
    # Newer runs in which it failed, or which were interrupted before they measured.
    results = edgesparse.load_results(run, tmp_path)
    failed = [row.model_copy(update={"status": "failed"}) for row in results.rows]
    for name, rows in (
        ("20990101-000000-tiny-aaaaaa", failed),
        ("20990102-000000-tiny-bbbbbb", []),
    ):
        newer = results.model_copy(update={"run": name, "rows": rows, "finished": bool(rows)})
        write_results(newer, tmp_path / ".edgesparse" / "runs" / name / "results.json")
    again = cli("export", "sparse-f32", "-o", "again")
    assert "20990101-000000-tiny-aaaaaa is newer, but sparse-f32 failed in it" in again.stderr
    assert (tmp_path / "again" / "README.md").read_text() == (out / "README.md").read_text()
    shown = cli("report")
    assert "run 20990102-000000-tiny-bbbbbb is newer, but was interrupted" in shown.stdout
    assert "20990101-000000-tiny-aaaaaa" in shown.stdout.splitlines()[0]
    np.save(tmp_path / "one.npy", np.zeros((8, 8, 1), np.float32))
    labels = json.loads((out / "labels.json").read_text())
    (out / "labels.json").write_text(json.dumps([f"é{label}" for label in labels]), "utf-8")
    # In the locale of a bare board.
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    answered = subprocess.run(
        [sys.executable, out / "predict.py", tmp_path / "one.npy"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **ascii_only},
        check=False,
    )
    assert answered.returncode == 0, answered.stderr
    assert any(rf"\xe9{label}" in answered.stdout for label in labels)
    for arguments, said in [
        (["sparse-f32", "-o", "out"], "out already exists"),
        (["spare-f32"], "unknown variant 'spare-f32' in any run; did you mean 'sparse-f32'"),
        (["sparse-f32", "--runtime", "tflite-runtime"], "has no model for 'tflite-runtime'"),
    ]:
        wrong = cli("export", *arguments)
        assert wrong.returncode == 2
        assert said in wrong.stderr
