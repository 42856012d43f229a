"""The shipped pipelines, from YAML to table, on a board behind SSH: as they are with both runtimes,
shortened with one or the other by turns."""

import json
import re
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
AS_SHIPPED = ("diabetes", "segmentation", "words", "pairs")
"""A task, one that learns nothing in one epoch, a layer, several inputs and outputs: trained until
their gates are met."""


RUNTIMES = ("tflite-runtime", "ai-edge-litert")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shipped")
    shutil.copytree(ROOT / "pipelines", folder / "pipelines")
    (folder / "devices").mkdir()
    with ssh_server(folder / "board") as board:
        for runtimes in (RUNTIMES, *((runtime,) for runtime in RUNTIMES)):
            name = board_with(*runtimes)
            text = board.device_yaml(name).replace("[ai-edge-litert]", f"[{', '.join(runtimes)}]")
            (folder / "devices" / f"{name}.yaml").write_text(text)
        yield folder


def board_with(*runtimes):
    return f"board-{'-'.join(runtimes)}"


def deploy(project, file, runtimes=RUNTIMES):
    device = board_with(*runtimes)
    words = ("deploy", f"pipelines/{file}.yaml", "--device", device, "--quick", "--json")
    done = run_cli(*words, cwd=project, timeout=1400)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    results = json.loads(done.stdout)
    rows = results["rows"]
    assert {row["runtime"]["name"] for row in rows} == set(runtimes)
    assert {row["status"] for row in rows} == {"ok"}, [row["error"] for row in rows]
    for row in rows:
        for metric in row["metrics"]:
            scale = 1.0 if metric["unit"] == "%" else max(abs(metric["host"]), 1e-6)
            # The same files answer alike everywhere, but for the order of sums.
            assert abs(metric["host"] - metric["device"]) <= 0.005 * scale, (row["variant"], metric)
            if row["variant"] == "dense-f32":  # All test samples are judged.
                assert abs(metric["keras"] - metric["host"]) <= 0.005 * scale, metric
    return results


def released(project, name):
    """How many releases a pipeline leaves that keeps its promises."""
    text = (project / "pipelines" / f"{name}.yaml").read_text()
    return 0 if "release: none" in text else 1


def in_one_epoch(text):
    """The pipeline, each training of which is as short as can be; so its gates on what is lost of
    accuracy say nothing."""
    text = re.sub(r"\bepochs: \d+", "epochs: 1", text)
    text = re.sub(r"^  - \{variant: .*_drop, .*\}\n?", "", text, flags=re.MULTILINE)
    return re.sub(r"^gates:\n(?!  - )", "", text, flags=re.MULTILINE)


SHORTENED = [name for name in SHIPPED if name not in AS_SHIPPED]


@pytest.mark.full
@pytest.mark.parametrize("name", SHORTENED)
def test_it_runs_in_one_epoch(project, name):
    text = in_one_epoch((project / "pipelines" / f"{name}.yaml").read_text())
    assert "_drop" not in text
    (project / "pipelines" / f"short-{name}.yaml").write_text(text)
    runtime = RUNTIMES[SHORTENED.index(name) % len(RUNTIMES)]
    results = deploy(project, f"short-{name}", [runtime])
    # What has learned nothing yet is not released, which is said.
    told = any("nothing was released" in note for note in results["notes"])
    assert len(results["releases"]) == (released(project, name) and not told)


@pytest.mark.full
@pytest.mark.parametrize("name", AS_SHIPPED)
def test_it_runs_as_it_is(project, shared_store, name):
    """In the store of all tests: test_emulator.py measures some of its models elsewhere."""
    assert len(deploy(project, name)["releases"]) == released(project, name)


@pytest.mark.bench
@pytest.mark.parametrize("name", SHORTENED)
def test_it_keeps_its_promises_as_it_is(project, name):
    """The gates and releases of those that all other tests run in one epoch."""
    assert len(deploy(project, name)["releases"]) == released(project, name)


def test_there_are_some():
    assert {"diabetes", "breast-cancer", "anomaly", "segmentation", "pairs"} <= set(SHIPPED)
    assert set(AS_SHIPPED) <= set(SHIPPED)
