from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from edgesparse import data
from edgesparse.methods import l1, magnitude, quantize_aware, rigl, threshold
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.training import checkpoints, compile_args
from edgesparse.methods.training import fitting as training
from edgesparse.spec.pipeline import Train
from edgesparse.spec.sparsify import Sparsify


@pytest.fixture
def dataset():
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 300)
    x = np.eye(3, dtype=np.float32)[y] + random.normal(0, 0.3, (300, 3))
    return data.from_arrays("toy", x.repeat(4, axis=1), y)


def kept_in(dataset, place):
    return replace(dataset, checkpoints=checkpoints.StageCheckpoints(place))


def network():
    tf.keras.utils.set_random_seed(5)
    layers = tf.keras.layers
    i = tf.keras.Input((12,))
    x = layers.Dense(16, activation="relu", name="wide")(i)
    return tf.keras.Model(i, layers.Dense(3, activation="softmax", name="out")(x))


def recurrent():
    """Its mask is held by us, and not by the toolkit."""
    tf.keras.utils.set_random_seed(5)
    layers = tf.keras.layers
    i = tf.keras.Input((12,))
    x = layers.Reshape((3, 4))(i)
    x = layers.GRU(8, name="wide")(x)
    return tf.keras.Model(i, layers.Dense(3, activation="softmax", name="out")(x))


def quiet(share, text):
    pass


class PowerCut(tf.keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 4:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_training_goes_on_where_it_was(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SAVED_EVERY_SECONDS", 0.0)
    settings, place = Train(epochs=6, learning_rate=1e-3), tmp_path / "interrupted"

    model = network()
    with pytest.raises(KeyboardInterrupt):
        training.fit(model, kept_in(dataset, place), settings, quiet, extra=[PowerCut()])
    told = []
    again = network()
    kept = kept_in(dataset, place)
    history = training.fit(again, kept, settings, lambda share, text: told.append(text))
    assert history["resumed_epoch"] == [4.0]
    assert len(history["loss"]) == 6
    assert told[0].startswith("epoch 5/6")
    assert history["loss"] == sorted(history["loss"], reverse=True)
    # A later training of the stage may be interrupted, too: this one is done by then.
    told.clear()
    kept = kept_in(dataset, place)
    same = training.fit(network(), kept, settings, lambda share, text: told.append(text))
    assert not told
    assert same["loss"] == history["loss"]
    kept.checkpoints.done()
    assert not place.exists()
    # What is of another network, or torn, is not taken.
    (place / "1").mkdir(parents=True)
    (place / "1" / "state.npz").write_bytes(b"PK torn")
    history = training.fit(network(), kept_in(dataset, place), settings, quiet)
    assert "resumed_epoch" not in history


METHODS = {
    "toolkit": (magnitude.magnitude, network, {"method": "magnitude", "sparsity": 0.7}),
    "own masks": (magnitude.magnitude, recurrent, {"method": "magnitude", "sparsity": 0.7}),
    "threshold": (threshold.threshold, network, {"method": "threshold", "relative": 0.8}),
    "l1": (l1.l1, network, {"method": "l1", "sparsity": 0.6}),
    "channels": (l1.l1, network, {"method": "l1", "group": "channel", "sparsity": 0.5}),
    "rigl": (rigl.rigl, network, {"method": "rigl", "sparsity": 0.7}),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "toolkit",
        *(pytest.param(name, marks=pytest.mark.full) for name in METHODS if name != "toolkit"),
    ],
)
def test_an_interrupted_fine_tuning_keeps_its_masks(dataset, tmp_path, monkeypatch, name):
    method, build, given = METHODS[name]
    spec = TypeAdapter(Sparsify).validate_python({**given, "epochs": 8})
    settings = Train(epochs=8, learning_rate=3e-3)
    monkeypatch.setattr(checkpoints, "SAVED_EVERY_SECONDS", 0.0)
    with monkeypatch.context() as cut:
        cut.setattr(compile_args, "callbacks", lambda *_: [PowerCut()])
        with pytest.raises(KeyboardInterrupt):
            method(build(), kept_in(dataset, tmp_path), settings, spec, quiet)
    done = method(build(), kept_in(dataset, tmp_path), settings, spec, quiet)
    whole = method(build(), dataset, settings, spec, quiet)
    assert done.history["resumed_epoch"] == [4.0]
    assert len(done.history["loss"]) == len(whole.history["loss"]) == 8
    # As many zeros, or channels, as without the interruption.
    for one, other in zip(done.layers, whole.layers, strict=True):
        assert one.achieved == pytest.approx(other.achieved, abs=0.04)
    assert [w.shape for w in done.model.get_weights()] == [
        w.shape for w in whole.model.get_weights()
    ]


@pytest.mark.slow
def test_an_interrupted_quantization_aware_training_keeps_zeros(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SAVED_EVERY_SECONDS", 0.0)

    def sparse():
        model = network()
        kernel = model.get_layer("wide").kernel
        kernel.assign(kernel * (np.abs(kernel.numpy()) > np.median(np.abs(kernel.numpy()))))
        return model

    settings, place = Train(epochs=6, learning_rate=1e-3), tmp_path / "kept"
    with monkeypatch.context() as cut:
        cut.setattr(compile_args, "callbacks", lambda *_: [PowerCut()])
        with pytest.raises(KeyboardInterrupt):
            quantize_aware.quantize_aware(sparse(), kept_in(dataset, place), settings, quiet)
    kept = kept_in(dataset, place)
    prepared, history = quantize_aware.quantize_aware(sparse(), kept, settings, quiet)
    assert history["resumed_epoch"] == [4.0]
    kernel = next(k for n, k in kernels(prepared.model).items() if "wide" in n)
    assert np.mean(kernel.variable.numpy() == 0) >= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_another_run_that_ends_the_same_training_first_crashes_nothing(
    dataset, tmp_path, monkeypatch, moment
):
    monkeypatch.setattr(checkpoints, "SAVED_EVERY_SECONDS", 0.0)
    place, save = tmp_path / "interrupted", np.savez

    def saved(*arguments, **arrays):
        if moment == "before":
            checkpoints.StageCheckpoints(place).done()
        save(*arguments, **arrays)
        checkpoints.StageCheckpoints(place).done()

    monkeypatch.setattr(np, "savez", saved)
    done = training.fit(network(), kept_in(dataset, place), Train(epochs=2), quiet)
    assert len(done["loss"]) == 2
    assert not place.exists()
