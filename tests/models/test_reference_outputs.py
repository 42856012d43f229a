"""Outputs of a model as labels, with the task of every output."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.data.npz import npz
from edgesparse.models.reference_outputs import label_samples
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import ModelSource
from edgesparse.spec.safe.isolated_python import run_json_module

pytestmark = pytest.mark.slow
K = tf.keras.layers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    i, side = tf.keras.Input((16,), name="main"), tf.keras.Input((4,), name="side")
    kind = K.Dense(3, "softmax", name="kind")(i)
    tf.keras.Model(i, [kind, K.Dense(1, name="size")(i)]).save(folder / "two.keras")
    tf.keras.Model(i, [kind, K.Dense(3, "softmax", name="b")(i)]).save(folder / "same.keras")
    decided = K.Dense(2, "sigmoid", name="events")(i)
    split = K.Softmax(name="kind")(K.Dense(3)(i))
    tf.keras.Model(i, [split, decided]).save(folder / "events.keras")
    both = K.Dense(90, "softmax", name="kind")(K.Concatenate()([i, side]))
    tf.keras.Model([i, side], both).save(folder / "inputs.keras")
    j = tf.keras.Input((5,), dtype="int32")
    tokens = K.GlobalAveragePooling1D()(K.Embedding(20, 4)(j))
    tf.keras.Model(j, K.Dense(2, "softmax")(tokens)).save(folder / "tokens.keras")
    r = np.random.default_rng(0)
    main, side = r.normal(size=(200, 16)).astype("f"), r.normal(size=(200, 4)).astype("f")
    np.save(folder / "x.npy", main)
    np.savez(folder / "x.npz", x=main)
    np.savez(folder / "named.npz", main=main, side=side)
    np.save(folder / "ids.npy", r.integers(0, 40, (200, 5)))
    return folder


def saved(folder, name):
    return ModelSource(ref=str(folder / name))


@pytest.mark.parametrize("samples", ["x.npy", "x.npz"])
@pytest.mark.parametrize(
    ("model", "tasks"),
    [
        ("two", {"kind": "classification", "size": "regression"}),
        ("same", {"kind": "classification", "b": "classification"}),
    ],
)
def test_labels_of_two_outputs(folder, model, tasks, samples):
    assert (
        label_samples(saved(folder, f"{model}.keras"), folder / samples, folder / "y.npz") == tasks
    )
    dataset = npz("y.npz", folder)
    assert list(dataset.targets) == list(tasks)
    widths = [{"classification": 3, "regression": 1}[task] for task in tasks.values()]
    assert [target.shape for target in dataset.targets.values()] == [(w,) for w in widths]


def test_two_inputs_and_classes_without_samples(folder):
    tasks = label_samples(saved(folder, "inputs.keras"), folder / "named.npz", folder / "y.npz")
    assert tasks == {"kind": "classification"}
    dataset = npz("y.npz", folder)
    assert {name: t.shape for name, t in dataset.inputs.items()} == {"main": (16,), "side": (4,)}
    assert dataset.targets["y"].shape == (90,)
    with pytest.raises(
        UsageError, match=r"x.npz has x \[200, 16\], but the model needs main, side"
    ):
        label_samples(saved(folder, "inputs.keras"), folder / "x.npz", folder / "y.npz")


def test_decisions_of_a_sigmoid_and_classes_of_a_softmax_layer(folder):
    tasks = label_samples(saved(folder, "events.keras"), folder / "x.npy", folder / "y.npz")
    assert tasks == {"kind": "classification", "events": "multi-label"}
    assert set(np.unique(np.load(folder / "y.npz")["y.events"])) == {0, 1}


def test_errors_of_the_model_are_reported(folder):
    with pytest.raises(UsageError, match=r"two.keras: the samples do not fit: .*shape"):
        label_samples(saved(folder, "two.keras"), folder / "ids.npy", folder / "y.npz")
    with pytest.raises(UsageError, match=r"tokens.keras: the samples do not fit: .*\[0, 20\)"):
        label_samples(saved(folder, "tokens.keras"), folder / "ids.npy", folder / "y.npz")


def test_weights_with_their_builder_have_the_labels_of_the_model(folder):
    (folder / "built.py").write_text(
        "import tensorflow as tf\n"
        "def build():\n"
        "    dense = tf.keras.layers.Dense(3, 'softmax', name='kind')\n"
        "    return tf.keras.Sequential([tf.keras.Input((16,)), dense])\n"
    )
    kind = tf.keras.models.load_model(folder / "two.keras", compile=False).get_layer("kind")
    model = tf.keras.Sequential([tf.keras.Input((16,)), kind])
    model.save_weights(folder / "w.h5")
    source = ModelSource(ref=str(folder / "built.py:build"), weights=str(folder / "w.h5"))
    assert label_samples(source, folder / "x.npy", folder / "w.npz") == {"kind": "classification"}
    label_samples(saved(folder, "two.keras"), folder / "x.npy", folder / "y.npz")
    np.testing.assert_array_equal(
        np.load(folder / "w.npz")["y"], np.load(folder / "y.npz")["y.kind"]
    )


def test_crash_of_the_child_process_is_an_error():
    with pytest.raises(Exception, match=r"m: its runtime crashed \(1\): .*IndexError"):
        run_json_module("edgesparse.models.reference_outputs", (), "m", 60)
