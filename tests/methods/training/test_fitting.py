import re
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import data
from edgesparse.methods import quantize_aware
from edgesparse.methods.network.kernels import kernels
from edgesparse.methods.training import fitting as training
from edgesparse.methods.training.recipe import build_recipe, compiled_args
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Quantize, Train
from edgesparse.spec.sparsify import Magnitude
from edgesparse.spec.task import Tasks
from edgesparse.tflite.convert import convert
from edgesparse.tflite.format.inspect import inspect


@pytest.fixture
def dataset():
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 300)
    x = np.eye(3, dtype=np.float32)[y] + random.normal(0, 0.3, (300, 3))
    return data.from_arrays("toy", x.repeat(4, axis=1), y)


def network(inputs=12, outputs=3):
    tf.keras.utils.set_random_seed(5)
    layers = tf.keras.layers
    i = tf.keras.Input((inputs,))
    x = layers.Dense(16, activation="relu", name="wide")(i)
    return tf.keras.Model(i, layers.Dense(outputs, activation="softmax", name="out")(x))


def quiet(share, text):
    pass


def train(dataset, **changes):
    model = network()
    settings = Train(**{"epochs": 3, "learning_rate": 1e-2, **changes})
    return model, training.fit(model, dataset, settings, quiet)


@pytest.mark.slow
def test_a_run_is_repeatable(dataset):
    first, history = train(dataset, schedule="cosine")
    second, again = train(dataset, schedule="cosine")
    assert history == again
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_it_learns_and_keeps_the_best_weights(dataset):
    model, history = train(dataset, epochs=8)
    x, y = data.arrays(dataset.validation, 999)
    accuracy = np.mean(np.argmax(model(x["x"]), axis=-1) == y["y"])
    assert accuracy == pytest.approx(max(history["val_accuracy"]))
    assert training.scores(model, dataset)["accuracy"] > 0.8


@pytest.mark.slow
def test_early_stopping(dataset):
    _, history = train(dataset, epochs=100, early_stopping=2, learning_rate=1e-2)
    assert len(history["loss"]) < 100


@pytest.mark.slow
@pytest.mark.full
def test_plain_penalties_make_small_weights_of_chosen_layers(dataset, tmp_path):
    def size(**given):
        model, _ = train(dataset, epochs=20, **given)
        return {name: float(np.abs(k.variable).mean()) for name, k in kernels(model).items()}

    plain = size()
    for given in ({"l1": 0.01}, {"l2": 0.1}):
        small = size(regularize={**given, "layers": ["wide"]})
        assert small["wide"] < 0.7 * plain["wide"]
        assert small["out"] > 0.7 * plain["out"]
    model, _ = train(dataset, epochs=1, regularize={"l2": 0.1})
    model.save(tmp_path / "m.keras")  # As after channel pruning.
    assert not tf.keras.models.load_model(tmp_path / "m.keras").losses
    with pytest.raises(UsageError, match="'wode' matches no layer with a kernel; did you mean"):
        size(regularize={"l2": 0.1, "layers": ["wode"]})


@pytest.mark.slow
def test_progress_goes_up_to_the_end(dataset):
    told = []
    model = network()
    settings = Train(epochs=2, learning_rate=1e-3)
    training.fit(model, dataset, settings, lambda share, text: told.append((share, text)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert "epoch 2/2, loss" in told[-1][1]
    assert re.search(r", accuracy \d\.\d+, validation \d\.\d+$", told[-1][1])


def test_a_later_step_has_its_own_epochs_rate_and_batch():
    train = Train(epochs=9, batch_size=64, learning_rate=0.3, early_stopping=1)
    step = Magnitude(method="magnitude", sparsity=0.5, epochs=2, batch_size=16)
    tuned = training.fine_tune(train, step, 0.5)
    assert (tuned.epochs, tuned.batch_size, tuned.early_stopping) == (2, 16, None)
    assert tuned.learning_rate == pytest.approx(0.15)
    quantize = Quantize(scheme="int8", qat=True, learning_rate=0.01)
    tuned = training.fine_tune(train, quantize, 0.5)
    assert (tuned.batch_size, tuned.learning_rate) == (64, 0.01)


def test_divergence_is_an_error(dataset):
    with pytest.raises(EdgesparseError, match="the training diverged"):
        train(dataset, learning_rate=1e30)


def test_model_and_data_must_fit(dataset):
    with pytest.raises(UsageError, match=r"the model takes \[5\] but the data gives \[12\]"):
        training.check_fit(network(inputs=5), dataset)
    with pytest.raises(UsageError, match=r"the model outputs \[9\] but the data has 3 classes"):
        training.check_fit(network(outputs=9), dataset)


def test_a_step_is_held_against_the_task_that_was_asked_for():
    """With labels and a reconstruction, classification would be guessed."""
    x = np.random.default_rng(0).random((60, 12), dtype=np.float32)
    unusual = data.from_arrays("unusual", x, np.arange(60) % 2)
    model = tf.keras.Sequential([tf.keras.Input((12,)), tf.keras.layers.Dense(12)])
    recipe = build_recipe(model, unusual, Train(), Tasks(name="reconstruction"))
    training.check_fit(model, replace(unusual, recipe=recipe))
    with pytest.raises(UsageError, match="it must output one value per class"):
        training.check_fit(model, unusual)


@pytest.mark.slow
def test_quantization_aware_training_keeps_the_zeros_of_groups():
    """The toolkit's own scheme forgets them, in training and in the file."""
    tf.keras.utils.set_random_seed(0)
    layers, random = tf.keras.layers, np.random.default_rng(0)
    x = inputs = tf.keras.Input((6, 6, 8))
    x = layers.Conv2D(16, 1, name="point")(layers.Conv2D(16, 3, groups=4, name="grouped")(x))
    model = tf.keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x)))
    for name in ("grouped", "point"):
        kernel = model.get_layer(name).kernel
        kernel.assign(kernel * (random.random(kernel.shape) < 0.4))
    zeros = {n: int((k.variable.numpy() == 0).sum()) for n, k in kernels(model).items()}
    x = random.normal(size=(64, 6, 6, 8)).astype(np.float32)
    points = data.from_arrays("points", x, np.arange(64) % 4)
    settings = Train(epochs=2, batch_size=16, learning_rate=1e-2)
    prepared, _ = quantize_aware.quantize_aware(model, points, settings, quiet)
    left = {n: int((k.variable.numpy() == 0).sum()) for n, k in kernels(prepared.model).items()}
    assert left["quant_grouped"] == zeros["grouped"]
    assert left["quant_point"] == zeros["point"]
    (weight,) = (
        w for w in inspect(convert(prepared.model, "int8", [x])).weights if w.shape == (16, 3, 3, 2)
    )
    assert weight.zeros >= zeros["grouped"]


@pytest.mark.slow
def test_quantization_aware_training_keeps_zeros(dataset):
    model, _ = train(dataset)
    kernel = model.get_layer("wide").kernel
    mask = np.random.default_rng(0).random(kernel.shape) < 0.4
    kernel.assign(kernel * mask)
    settings = Train(epochs=2, learning_rate=1e-3)
    prepared, history = quantize_aware.quantize_aware(model, dataset, settings, quiet)
    quantized = prepared.model
    trained = next(w for w in quantized.trainable_weights if "wide/kernel" in w.name).numpy()
    assert np.all((trained * mask) == trained)
    assert len(history["loss"]) == 2
    assert training.scores(quantized, dataset)["accuracy"] > 0.6  # By chance: a third.


def test_a_layer_that_cannot_be_quantized_is_named(dataset):
    class Odd(tf.keras.layers.Layer):
        pass

    model = tf.keras.Sequential([tf.keras.Input((12,)), Odd(name="odd")])
    with pytest.raises(EdgesparseError, match="does not support this model"):
        quantize_aware.prepare(model)


def raising(y_true, y_pred):
    raise KeyError("weights of class 7")


@pytest.mark.parametrize(
    ("loss", "one_hot", "message"),
    [
        (
            "categorical_crossentropy",
            False,
            r"targets int64 \[\] .* out \[3\]; .*loss: sparse_categor",
        ),
        (
            tf.keras.losses.CategoricalCrossentropy(from_logits=True),
            False,
            r"loss: \{name: SparseCategoricalCrossentropy, from_logits: true\}",
        ),
        (tf.keras.losses.MeanSquaredError(), False, r"mean_squared_error cannot compare"),
        (
            "sparse_categorical_crossentropy",
            True,
            r"float32 \[3\] .*'train: \{loss: categorical_cr",
        ),
        (
            raising,
            False,
            r"the loss of a training sample: test_fitting.py:\d+: KeyError: .*class 7",
        ),
        ("sparse_categorical_crossentropy", False, None),
        ("categorical_crossentropy", True, None),
    ],
)
def test_a_loss_that_does_not_take_the_targets_is_refused_before_training(
    dataset, loss, one_hot, message
):
    if one_hot:
        x, y = (next(iter(given.values())) for given in data.arrays(dataset.train, 100))
        dataset = data.from_arrays("toy", x, np.eye(3, dtype=np.float32)[y])
    model = network()
    model.compile("adam", loss=loss)
    settings = Train()
    recipe = build_recipe(model, dataset, settings, compiled=compiled_args(model, settings))
    if message is None:
        training.check_losses(model, dataset, settings, recipe)
        return
    with pytest.raises(UsageError, match=message):
        training.check_losses(model, dataset, settings, recipe)
