"""The Python API, as a script or a notebook uses it."""

import asyncio
import io
import shutil
import subprocess
import sys

import pytest

import edgesparse as es
from edgesparse.graph import events
from tests.conftest import HERE, TINY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_store")]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    (folder / "devices").mkdir()
    (folder / "devices" / "here.yaml").write_text(
        HERE.replace("workdir: work", f"workdir: {folder}/work")
    )
    (folder / "tiny.yaml").write_text(TINY)
    return folder


@pytest.fixture(scope="module")
def deployed(project, artifacts):
    """Deployed as in a notebook: in an event loop, with an output that is no file."""
    received = []

    async def cell():
        return es.deploy(project / "tiny.yaml", ["here"], project=project, listener=received.append)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.StringIO())
        patch.setenv("EDGESPARSE_STORE", str(artifacts))
        return asyncio.run(cell()), received


def test_deploy_gives_results_and_tells_its_progress(deployed):
    results, received = deployed
    assert isinstance(results, es.Results)
    assert [row.status for row in results.rows] == ["ok", "ok"]
    assert results.best("here").variant in ("dense-f32", "sparse-f32")
    assert results.best() == results.best("here")
    assert len(results.to_frame()) == 2
    done = [event.label for event in received if isinstance(event, events.StageDone)]
    # What does not wait for one another may end in any order.
    assert {"samples", "train", "convert dense-f32", "convert sparse-f32"} <= set(done)
    assert done.index("train") < done.index("convert dense-f32")
    assert any(isinstance(event, events.StageProgress) for event in received)


def test_this_process_has_no_tensorflow(project, deployed):
    """It works in a process of its own: a crash there, or its memory, is none of ours."""
    code = (
        "import sys, edgesparse as es\n"
        "es.deploy('tiny.yaml', ['here'], quick=True)\n"
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_runs_can_be_read_again(project, deployed):
    results, _ = deployed
    assert results.run in es.list_runs(project)
    assert es.load_results(results.run, project) == results


def test_a_plan_says_what_is_there(project, deployed):
    planned = es.plan(project / "tiny.yaml", "here", project=project)
    assert all(status.cached for status in planned.stages)
    assert isinstance(planned.predictions, tuple)


def test_files_are_inspected_and_measured(project, deployed):
    results, _ = deployed
    models = project / ".edgesparse" / "runs" / results.run / "models"
    file = shutil.copy(models / "sparse-f32-ai-edge-litert.tflite", project / "sparse.tflite")
    found = es.inspect(file, "here", project=project)
    assert found.info.sparsity > 0.4
    assert set(found.explained) == {"here | ai-edge-litert 2.1.6"}
    measured = es.bench(file, "here", quick=True, project=project)
    assert [row.variant for row in measured.rows] == ["sparse"]
    assert measured.best().latency_ms.p50 > 0


def test_devices_and_pipelines_may_be_loaded_before(project, deployed):
    from edgesparse.spec.reading.load import load_device

    loaded = es.load_pipeline(project / "tiny.yaml")
    device = load_device(project / "devices" / "here.yaml").spec
    planned = es.plan(loaded, device, project=project, variants=["sparse-f32"])
    assert {v for status in planned.stages for v in status.stage.variants} == {
        "dense-f32",
        "sparse-f32",
    }


def test_mistakes_are_errors_of_ours(project):
    with pytest.raises(es.EdgesparseError, match="no device file"):
        es.plan(project / "tiny.yaml", "gone", project=project)
    with pytest.raises(es.EdgesparseError, match="no such file"):
        es.deploy(project / "gone.yaml", project=project)
    with pytest.raises(AttributeError, match="no attribute 'deplo'"):
        es.deplo  # noqa: B018


def test_the_room_of_the_same_name_is_still_there():
    from edgesparse import bench
    from edgesparse.measure import results

    assert bench is es.bench
    assert results.Results is es.Results
