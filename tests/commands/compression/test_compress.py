"""A trained model made smaller: its output is there when all is done, and not before."""

from importlib.util import find_spec

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import Project
from edgesparse.graph.events import Note, StageStarted
from edgesparse.spec.errors import UsageError
from tests.conftest import HERE
from tests.tools.files import labels

pytestmark = [pytest.mark.slow, pytest.mark.full]


def test_samples_alone_for_a_model_of_two_outputs_and_errors_by_the_users_files(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.yaml").write_text(HERE)
    i = tf.keras.Input((16,))
    kind = tf.keras.layers.Dense(3, "softmax", name="kind")(i)
    tf.keras.Model(i, [kind, tf.keras.layers.Dense(1, name="size")(i)]).save("two.keras")
    np.save("x.npy", np.random.default_rng(0).normal(size=(200, 16)).astype("f"))
    with Project(tmp_path) as project:
        done = project.compress("two.keras", "x.npy", "here", "out.tflite", quick=True)
        row = next(row for row in done.results.rows if row.variant == "dense-f32")
        assert row.metrics[0].name == "kind accuracy"
        np.savez("bad.npz", x=np.zeros((50, 9), "f"), y=np.zeros(50, int))
        with pytest.raises(UsageError, match=r"^two.keras with bad.npz: the model") as caught:
            project.compress("two.keras", "bad.npz", "here", quick=True)
    assert "compress.yaml" not in str(caught.value)


def test_a_saved_model_is_quantized_and_then_pruned_as_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.yaml").write_text(HERE)
    layers = [tf.keras.layers.Dense(64, "relu"), tf.keras.layers.Dense(8, "softmax")]
    tf.keras.Sequential([tf.keras.Input((32,)), *layers]).save("saved", save_format="tf")
    np.save("x.npy", np.random.default_rng(0).normal(size=(100, 32)).astype("f"))
    seen = []
    with Project(tmp_path, listener=seen.append) as project:
        done = project.compress(
            "saved", "x.npy", "here", "out.tflite", sparsity=0.5, max_error=0.99, quick=True
        )
    labels_seen = [event.label for event in seen if isinstance(event, StageStarted)]
    assert "reconstruct with 50% zeros" in labels_seen
    assert done.source == "saved"
    assert done.bytes_after == (tmp_path / "out.tflite").stat().st_size < done.bytes_before
    notes = [event.text for event in seen if isinstance(event, Note)]
    # Zeros save no time here, and the dense file is judged by its metric: it stays.
    assert done.sparsity is None
    assert done.variant in {row.variant for row in done.results.rows}
    assert any("out.tflite has no zeros" in note for note in notes)


def written_project(folder, content, samples):
    """Write a device, a model and its samples; returns the model's path and that of an output."""
    (folder / "devices").mkdir()
    (folder / "devices" / "here.yaml").write_text(HERE)
    (folder / "m.tflite").write_bytes(content)
    np.save(folder / "x.npy", samples)
    return folder / "m.tflite", folder / "out.tflite"


def test_an_output_is_whole_or_not_there_and_keeps_what_is_appended(
    tflite_files, samples, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    source, out = written_project(tmp_path, tflite_files["dense"].read_bytes() + labels(), samples)
    heard = []

    def interrupt(event):
        """Ctrl-C as soon as the result is measured."""
        heard.append(event)
        if isinstance(event, StageStarted) and event.label.startswith("benchmark"):
            raise KeyboardInterrupt

    words = (source, tmp_path / "x.npy", "here", out)
    with Project(tmp_path, listener=interrupt) as project, pytest.raises(KeyboardInterrupt):
        project.compress(*words, sparsity=0.5, max_error=0.99, quick=True)
    assert not list(tmp_path.glob("out*"))
    with Project(tmp_path) as project:
        done = project.compress(*words, sparsity=0.5, max_error=0.99, quick=True)
        assert {row.variant for row in done.results.rows} >= {"m", "sparse"}
        assert f"{source} {out}" in done.results.command
        with pytest.raises(UsageError, match="cannot be written"):
            project.compress(*words[:3], tmp_path)
    assert out.read_bytes().endswith(labels())
    assert out.stat().st_size == done.bytes_after < source.stat().st_size


@pytest.mark.skipif(find_spec("ai_edge_quantizer") is None, reason="no ai-edge-quantizer")
def test_a_dense_file_is_written_first_and_levels_are_kept(
    tflite_files, samples, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    source, out = written_project(tmp_path, tflite_files["dense"].read_bytes(), samples)
    words, notes = (source, tmp_path / "x.npy", "here", out), []

    def interrupt(event):
        """Ctrl-C before zeros."""
        if isinstance(event, Note):
            notes.append(event.text)
        if isinstance(event, StageStarted) and event.label.startswith("reconstruct"):
            raise KeyboardInterrupt

    with Project(tmp_path, listener=interrupt) as project, pytest.raises(KeyboardInterrupt):
        project.compress(*words, max_error=0.99, quick=True)
    assert out.stat().st_size < source.stat().st_size
    assert f"interrupted: {out} is the best file so far" in notes
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / ".edgesparse").rglob("int8.tflite")}
    assert kept
    with Project(tmp_path, listener=lambda event: notes.append(str(event))) as project:
        done = project.compress(*words, max_error=0.99, quick=True, minutes=1e-9)
        assert done.sparsity is None
        assert done.lost
    assert any("--minutes ended before zeros" in note for note in notes)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept


@pytest.mark.slow
@pytest.mark.full
def test_a_form_that_is_wrong_on_a_runtime_is_a_failed_row(
    tflite_files, samples, tmp_path, monkeypatch
):
    """tflite-runtime 2.14 answers wrong by fully connected layers with scales per channel."""
    monkeypatch.chdir(tmp_path)
    source, out = written_project(tmp_path, tflite_files["dense"].read_bytes(), samples)
    device = tmp_path / "devices" / "here.yaml"
    device.write_text(device.read_text().replace("[ai", "[tflite-runtime, ai"))
    with Project(tmp_path) as project:
        words = (source, tmp_path / "x.npy", "here", out)
        done = project.compress(*words, max_error=0.99, quick=True, minutes=1e-9)
    dynamic = {row.runtime.name: row for row in done.results.rows if row.variant == "dynamic"}
    assert "of golden outputs match the expected" in dynamic["tflite-runtime"].error
    assert dynamic["ai-edge-litert"].agreement == 1.0
