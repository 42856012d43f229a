"""A model's own answers as labels: of every output, in the task that fits it."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.data.npz import npz
from edgesparse.models.files.reference_outputs import write_answers
from edgesparse.spec.errors import UsageError
from edgesparse.spec.safe.programs import run_json_module

pytestmark = pytest.mark.slow
K = tf.keras.layers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("answers")
    i, side = tf.keras.Input((16,), name="main"), tf.keras.Input((4,), name="side")
    kind = K.Dense(3, "softmax", name="kind")(i)
    tf.keras.Model(i, [kind, K.Dense(1, name="size")(i)]).save(place / "two.keras")
    tf.keras.Model(i, [kind, K.Dense(3, "softmax", name="b")(i)]).save(place / "same.keras")
    both = K.Dense(90, "softmax", name="kind")(K.Concatenate()([i, side]))
    tf.keras.Model([i, side], both).save(place / "inputs.keras")
    j = tf.keras.Input((5,), dtype="int32")
    tokens = K.GlobalAveragePooling1D()(K.Embedding(20, 4)(j))
    tf.keras.Model(j, K.Dense(2, "softmax")(tokens)).save(place / "tokens.keras")
    r = np.random.default_rng(0)
    main, side = r.normal(size=(200, 16)).astype("f"), r.normal(size=(200, 4)).astype("f")
    np.save(place / "x.npy", main)
    np.savez(place / "x.npz", x=main)
    np.savez(place / "named.npz", main=main, side=side)
    np.save(place / "ids.npy", r.integers(0, 40, (200, 5)))
    return place


@pytest.mark.parametrize("samples", ["x.npy", "x.npz"])
@pytest.mark.parametrize(
    ("model", "tasks"),
    [
        ("two", {"kind": "classification", "size": "regression"}),
        ("same", {"kind": "classification", "b": "classification"}),
    ],
)
def test_two_outputs_are_labels_by_their_names(folder, model, tasks, samples):
    assert write_answers(folder / f"{model}.keras", folder / samples, folder / "y.npz") == tasks
    dataset = npz("y.npz", folder)
    assert list(dataset.targets) == list(tasks)
    widths = [{"classification": 3, "regression": 1}[task] for task in tasks.values()]
    assert [target.shape for target in dataset.targets.values()] == [(w,) for w in widths]


def test_two_inputs_go_by_their_names_and_classes_without_samples_count(folder):
    tasks = write_answers(folder / "inputs.keras", folder / "named.npz", folder / "y.npz")
    assert tasks == {"kind": "classification"}
    dataset = npz("y.npz", folder)
    assert {name: t.shape for name, t in dataset.inputs.items()} == {"main": (16,), "side": (4,)}
    assert dataset.targets["y"].shape == (90,)
    with pytest.raises(UsageError, match=r"x.npz has x \[200, 16\]; the model takes main, side"):
        write_answers(folder / "inputs.keras", folder / "x.npz", folder / "y.npz")


def test_what_the_model_raises_is_a_reason(folder):
    with pytest.raises(UsageError, match=r"two.keras: does not take these samples: .*shape"):
        write_answers(folder / "two.keras", folder / "ids.npy", folder / "y.npz")
    with pytest.raises(UsageError, match=r"tokens.keras: does not take these samples: .*\[0, 20\)"):
        write_answers(folder / "tokens.keras", folder / "ids.npy", folder / "y.npz")


def test_a_program_that_raises_is_an_error_with_its_cause():
    with pytest.raises(Exception, match=r"m: its runtime crashed \(1\): .*missing 3 required"):
        run_json_module("edgesparse.models.files.reference_outputs", (), "m", 60)
