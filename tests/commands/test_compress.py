"""A trained model made smaller: its output is there when all is done, and not before."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import Project
from edgesparse.graph.events import StageStarted
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


def test_an_output_is_whole_or_not_there_and_keeps_what_is_appended(
    tflite_files, samples, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "here.yaml").write_text(HERE)
    source, out = tmp_path / "m.tflite", tmp_path / "out.tflite"
    source.write_bytes(tflite_files["dense"].read_bytes() + labels())
    np.save(tmp_path / "x.npy", samples)
    heard = []

    def interrupt(event):
        """Ctrl-C as soon as the result is measured."""
        heard.append(event)
        if isinstance(event, StageStarted) and event.label.startswith("benchmark"):
            raise KeyboardInterrupt

    words = (source, tmp_path / "x.npy", "here", out)
    with Project(tmp_path, listener=interrupt) as project, pytest.raises(KeyboardInterrupt):
        project.compress(*words, sparsity=0.5, max_error=1.0, quick=True)
    assert not list(tmp_path.glob("out*"))
    with Project(tmp_path) as project:
        done = project.compress(*words, sparsity=0.5, max_error=1.0, quick=True)
        assert {row.variant for row in done.results.rows} == {"m", "out"}
        assert f"{source} {out}" in done.results.command
        with pytest.raises(UsageError, match="cannot be written"):
            project.compress(*words[:3], tmp_path)
    assert out.read_bytes().endswith(labels())
    assert out.stat().st_size == done.bytes_after < source.stat().st_size
