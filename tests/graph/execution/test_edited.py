"""Code and data that are edited while a run goes on, or are others on a Dask worker."""

import os
import shutil

import numpy as np
import pytest

import edgesparse
from edgesparse.graph import events
from edgesparse.spec.reading.load import load_pipeline
from tests.conftest import HERE, require
from tests.graph.execution.test_scheduler import artifacts
from tests.tools.dasks import Dask

pytestmark = pytest.mark.slow
OWN = """
name: own
data: {name: npz, args: {path: d.npz}}
model: {ref: "mine.py:build"}
train: {epochs: 1}
variants: {dense: {}}
"""
MINE = """
import tensorflow as tf
from beside import WIDTH


def build():
    layers = tf.keras.layers
    return tf.keras.Sequential([tf.keras.Input((8,)), layers.Dense(WIDTH), layers.Dense(2)])
"""


def write(folder, width=4, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.py").write_text(MINE)
    (folder / "beside.py").write_text(f"WIDTH = {width}\n")
    (folder / "own.yaml").write_text(OWN)
    random = np.random.default_rng(seed)
    x = random.random((64, 8), np.float32)
    np.savez(folder / "d.npz", x=x, y=(x.mean(1) > 0.5).astype(np.int64))


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    write(folder / "pipelines")
    (folder / "devices").mkdir()
    here = HERE.replace("workdir: work", f"workdir: {folder / 'work'}")
    (folder / "devices" / "here.yaml").write_text(here)
    return folder


def run(folder, listener=events.null_listener, **options):
    loaded = load_pipeline(folder / "pipelines" / "own.yaml")
    with edgesparse.Project(folder, listener=listener, **options) as opened:
        return opened.deploy(loaded, ["here"], benchmark=False)


def weights(folder):
    """The sizes of the trained models, by their keys."""
    stored = folder / ".edgesparse" / "store"
    return {
        key: (stored / key / "model.weights.h5").stat().st_size
        for key, about in artifacts(folder).items()
        if about["stage"] == "train"
    }


@pytest.mark.full
def test_code_that_is_edited_meanwhile_does_not_count(project, workers):
    """The models are those of the code in their keys, and the next run trains the new code's."""

    def edit(event):
        if isinstance(event, events.StageStarted) and event.label.startswith("preflight"):
            (project / "pipelines" / "beside.py").write_text("WIDTH = 40\n")

    assert not run(project, edit, workers=workers).failed
    first = weights(project)
    assert not run(project, workers=workers).failed
    second = weights(project)
    assert len(first) == 1
    assert len(second) == 2
    (key,) = first
    (new,) = second.keys() - first.keys()
    assert second[new] > second[key] + 1000
    # Byte for byte what an unbroken run makes.
    (project / "pipelines" / "beside.py").write_text("WIDTH = 4\n")
    shutil.rmtree(project / ".edgesparse" / "store")
    run(project, workers=workers)
    assert weights(project) == first


def test_data_that_is_edited_meanwhile_is_an_error(project, workers):
    def edit(event):
        if isinstance(event, events.StageProgress) and event.label.startswith("train"):
            write(project / "pipelines", seed=1)

    (row,) = run(project, edit, workers=workers).rows
    assert row.status == "failed"
    assert "d.npz: changed since the run began; run the same command again" in row.error
    assert not weights(project)
    assert not run(project, workers=workers).failed


@pytest.mark.full
def test_a_worker_elsewhere_runs_the_code_that_was_sent(project, tmp_path, monkeypatch):
    """Started in another folder, where files of the same names lie; it has not got the pipeline's
    folder, and says so of data."""
    require(os.geteuid() == 0, "root, to hide a folder from a worker")
    monkeypatch.chdir(project)
    hidden = project / "pipelines"
    builtin = OWN.replace("{name: npz, args: {path: d.npz}}", "{name: digits, args: {}}")
    builtin = builtin.replace("digits, args: {}", "digits, args: {input_shape: [8]}")
    with Dask(tmp_path) as dask:
        write(dask.folder, width=40, seed=1)
        words = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {hidden}; exec "$@"', "-"]
        dask.start_worker("far", *words)
        (row,) = run(project, cluster=dask.address).rows
        assert "d.npz: No such file or directory" in row.error
        assert "worker tcp://" in row.error
        (hidden / "mine.py").write_text(MINE.replace("(8,)", "(8, 8, 1)").replace(
            "layers.Dense(WIDTH)", "layers.Flatten(), layers.Dense(WIDTH)").replace(
            "Dense(2)", "Dense(10, 'softmax')"))  # fmt: skip
        (hidden / "own.yaml").write_text(builtin.replace("[8]", "[8, 8, 1]"))
        results = run(project, cluster=dask.address)
    assert not results.failed, [row.error for row in results.rows]
    ((key, far),) = weights(project).items()
    shutil.rmtree(project / ".edgesparse" / "store")
    run(project)
    assert weights(project) == {key: far}


def test_a_worker_that_sees_other_data_is_an_error(project, tmp_path):
    require(os.geteuid() == 0, "root, to show a worker another folder")
    seen = project / "pipelines"
    write(tmp_path / "others", seed=1)
    with Dask(tmp_path) as dask:
        bound = f'mount --bind {tmp_path / "others"} {seen}; exec "$@"'
        dask.start_worker("other", "unshare", "--mount", "sh", "-c", bound, "-")
        (row,) = run(project, cluster=dask.address).rows
    assert f"{seen}/d.npz: changed since the run began" in row.error
    assert not weights(project)
