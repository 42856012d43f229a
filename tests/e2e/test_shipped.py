"""The shipped pipelines, from YAML to table, on a board behind SSH with both runtimes."""

import json
import shutil

import pytest

from tests.conftest import ROOT, run_cli
from tests.tools.sshd import ssh_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
# Which make deploy runs, and test_deploy.py looks at.
ELSEWHERE = ("digits", "digits-mlp")
SHIPPED = sorted(
    path.stem for path in (ROOT / "pipelines").glob("*.yaml") if path.stem not in ELSEWHERE
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shipped")
    shutil.copytree(ROOT / "pipelines", folder / "pipelines")
    (folder / "devices").mkdir()
    with ssh_server(folder / "board") as board:
        text = board.device_yaml("board").replace("[ai-edge", "[tflite-runtime, ai-edge")
        (folder / "devices" / "board.yaml").write_text(text)
        yield folder


@pytest.mark.parametrize("name", SHIPPED)
def test_it_runs_as_it_is(project, name):
    words = ("deploy", f"pipelines/{name}.yaml", "--device", "board", "--quick", "--json")
    done = run_cli(*words, cwd=project, timeout=1400)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    found = json.loads(done.stdout)
    rows = found["rows"]
    assert {row["runtime"]["name"] for row in rows} == {"tflite-runtime", "ai-edge-litert"}
    assert {row["status"] for row in rows} == {"ok"}, [row["error"] for row in rows]
    for row in rows:
        for metric in row["metrics"]:
            scale = 1.0 if metric["unit"] == "%" else max(abs(metric["host"]), 1e-6)
            # The same files answer alike everywhere, but for the order of sums.
            assert abs(metric["host"] - metric["device"]) <= 0.005 * scale, (row["variant"], metric)
            if row["variant"] == "dense-f32":  # All test samples are judged.
                assert abs(metric["keras"] - metric["host"]) <= 0.005 * scale, metric
    text = (ROOT / "pipelines" / f"{name}.yaml").read_text()
    assert len(found["releases"]) == (0 if "release: none" in text else 1)


def test_there_are_some():
    assert {"diabetes", "breast-cancer", "anomaly", "segmentation", "pairs"} <= set(SHIPPED)
