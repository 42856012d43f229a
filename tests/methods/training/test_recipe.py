"""How a model is trained: by what the pipeline says, its own compile(), and its task."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import data
from edgesparse.methods.training import compile_args, fitting
from edgesparse.methods.training.recipe import build_recipe, compiled_args, evaluate
from edgesparse.spec.errors import UsageError
from edgesparse.spec.task import Tasks
from edgesparse.spec.training import Train
from tests.methods.conftest import quiet

L = tf.keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.random((200, 6)).astype(np.float32)
KIND = (X[:, 0] > X[:, 1]).astype(int) + (X[:, 2] > 0.7)


def network(*layers, inputs=6):
    tf.keras.utils.set_random_seed(1)
    return tf.keras.Sequential([tf.keras.Input((inputs,)), L.Dense(16, "relu"), *layers])


def recipe(model, dataset, *, task=None, metric=None, **train):
    settings = Train(**train)
    given = Tasks.model_validate(task or {})
    compiled = compiled_args(model, settings)
    return build_recipe(model, dataset, settings, given, metric, compiled=compiled)


def trained(model, dataset, found, **train):
    from dataclasses import replace

    settings = Train(**{"epochs": 8, "learning_rate": 0.02, **train})
    dataset = replace(dataset, recipe=found)
    history = fitting.fit(model, dataset, settings, quiet)
    return history, evaluate(model, dataset.test, found)


LABELS = data.from_arrays("labels", X, KIND)


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "logits"), [(L.Dense(3, "softmax"), False), (L.Dense(3), True)])
def test_logits_are_seen_and_trained_as_such(layer, logits):
    model = network(type(layer).from_config(layer.get_config()))
    found = recipe(model, LABELS)
    assert found.resolved["logits"] is logits
    _, scores = trained(model, LABELS, found, epochs=40)
    assert scores["accuracy"] > 0.65  # A third by chance.


@pytest.mark.slow
def test_regression_multi_label_segmentation_and_anomalies_learn():
    dataset = data.from_arrays("sums", X, X.sum(axis=1))
    model = network(L.Dense(1))
    history, scores = trained(model, dataset, recipe(model, dataset))
    assert scores["mae"] < 0.3
    assert history["val_mae"][-1] < history["val_mae"][0]
    dataset = data.from_arrays("labels", X, (X[:, :3] > 0.5).astype(int))
    model = network(L.Dense(3, "sigmoid"))
    history, scores = trained(model, dataset, recipe(model, dataset), epochs=15)
    assert scores["mAP"] > 0.9
    assert history["val_mAP"][-1] > history["val_mAP"][0]
    images = RANDOM.random((60, 8, 8, 1)).astype(np.float32)
    dataset = data.from_arrays("masks", images, (images[..., 0] > 0.5).astype(int))
    model = tf.keras.Sequential(
        [tf.keras.Input((8, 8, 1)), L.Conv2D(8, 1, activation="relu"), L.Conv2D(2, 1)]
    )
    _, scores = trained(model, dataset, recipe(model, dataset), epochs=20)
    assert scores["mean-iou"] > 0.6
    usual = np.tile(X[:, :1], (1, 6)) + 0.01 * RANDOM.random((200, 6))
    odd = np.arange(200) % 5 == 0
    usual[odd] = RANDOM.random((odd.sum(), 6))
    dataset = data.from_arrays("machine", usual.astype(np.float32), odd.astype(int))
    model = tf.keras.Sequential([tf.keras.Input((6,)), L.Dense(2), L.Dense(6)])
    found = recipe(model, dataset, task={"name": "reconstruction"})
    _, scores = trained(model, dataset, found, epochs=30)
    assert scores["auc"] > 0.9


@pytest.mark.slow
def test_several_inputs_and_outputs_go_by_their_names():
    first, second = tf.keras.Input((6,), name="a"), tf.keras.Input((2,), name="b")
    x = L.Dense(32, "relu")(L.Concatenate()([first, second]))
    kind, size = L.Dense(3, "softmax", name="kind")(x), L.Dense(1, name="size")(x)
    model = tf.keras.Model([first, second], [kind, size])
    side = RANDOM.random((200, 2)).astype(np.float32)
    # In another order than the model's.
    dataset = data.from_arrays(
        "heads", {"b": side, "a": X}, {"size": X.sum(axis=1), "kind": KIND.astype(int)}
    )
    found = recipe(model, dataset, metric="size mae", task={"loss_weights": {"size": 2.0}})
    assert found.pairing_notes == ()
    assert found.inputs == ("a", "b")
    assert found.targets == ("kind", "size")
    assert (found.metric_name, found.loss_weights) == ("size mae", (1.0, 2.0))
    history, scores = trained(model, dataset, found, epochs=20)
    assert scores["kind accuracy"] > 0.7
    assert scores["size mae"] < 0.4
    assert len(history["val_size mae"]) == 20


def test_several_inputs_of_other_names_go_by_their_order_which_is_said():
    ends = [tf.keras.Input((6,), name="a"), tf.keras.Input((2,), name="b")]
    model = tf.keras.Model(ends, L.Dense(3)(L.Concatenate()(ends)))
    dataset = data.from_arrays("pair", {"left": X, "right": X[:, :2]}, KIND)
    found = recipe(model, dataset)
    assert found.notes[1] == "inputs by their order, model = data: a = left, b = right"


def test_what_a_model_was_compiled_with_counts_unless_the_pipeline_says_more():
    model = network(L.Dense(3))
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(0.5, momentum=0.8), loss, metrics=["accuracy"])
    found = recipe(model, LABELS)
    assert found.notes[1].endswith("own compile(), learning rate 0.5")
    made = compile_args.optimizer(Train(), found, 0.1)
    assert (type(made).__name__, made.momentum) == ("SGD", 0.8)
    assert compile_args.losses(Train(), found) is loss
    other = {"optimizer": {"name": "AdamW", "weight_decay": 0.01}, "loss": "mse"}
    found = recipe(model, LABELS, **other)
    assert found.compiled.optimizer is None
    made = compile_args.optimizer(Train(**other), found, 0.1)
    assert (type(made).__name__, made.weight_decay) == ("AdamW", 0.01)
    softmax = network(L.Dense(3))
    softmax.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy())
    assert recipe(softmax, LABELS).resolved["logits"] is False


def rates(train, epochs=10, per_epoch=4):
    rate = compile_args.learning_rate(Train(epochs=epochs, learning_rate=1.0, **train), per_epoch)
    return [float(rate(i)) if callable(rate) else rate for i in range(epochs * per_epoch)]


def test_schedules_are_what_they_say():
    assert set(rates({})) == {1.0}
    cosine = rates({"schedule": "cosine"})
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[20] == pytest.approx(0.5)
    step = rates({"schedule": {"name": "step", "epochs": 5, "factor": 0.1}})
    assert (step[19], step[20]) == (1.0, pytest.approx(0.1))
    parts = rates({"schedule": {"name": "piecewise", "boundaries": [2, 5], "factors": [0.5, 0.1]}})
    assert (parts[8], parts[9], parts[30]) == (1.0, 0.5, pytest.approx(0.1))
    warm = rates({"schedule": {"name": "cosine", "warmup_epochs": 2}})
    assert warm[:8] == sorted(warm[:8])
    assert warm[7] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"optimizer": "Adm"}, "train.optimizer: Keras has no 'Adm'; did you mean 'Adam'"),
        ({"optimizer": {"name": "SGD", "mometum": 1}}, "train.optimizer: SGD: "),
        ({"loss": "mean_sqared"}, "train.loss: Keras has no 'mean_sqared'"),
        ({"metrics": ["Acuracy"]}, "train.metrics: Keras has no 'Acuracy'"),
    ],
)
def test_what_keras_does_not_have_is_said_before_training(train, message):
    model = network(L.Dense(3))
    found = recipe(model, LABELS, **train)
    with pytest.raises(UsageError) as error:
        compile_args.check(Train(**train), LABELS, found)
    assert message in str(error.value)


@pytest.mark.slow
def test_rare_classes_count_more_when_balanced():
    y = (X[:, 0] > 0.95).astype(int)
    y[:12] = 1
    dataset = data.from_arrays("rare", X, y)
    model = network(L.Dense(2))
    found = recipe(model, dataset)
    weights = compile_args.class_weights(Train(class_weight="balanced"), dataset, found)
    assert weights[1] > 3 * weights[0]
    numbers = data.from_arrays("sums", X, X.sum(axis=1))
    regression = recipe(network(L.Dense(1)), numbers)
    with pytest.raises(UsageError, match="class_weight requires classification"):
        compile_args.class_weights(Train(class_weight="balanced"), numbers, regression)


@pytest.mark.slow
def test_sample_weights_and_early_stopping_and_random_augmentation():
    weights = np.where(KIND == 2, 0.0, 1.0)
    dataset = data.from_arrays("weighted", X, KIND, sample_weight=weights)
    model = network(L.Dense(3, "softmax"))
    found = recipe(model, dataset)
    history, _ = trained(model, dataset, found, epochs=40, early_stopping=2)
    assert history[fitting.STOPPED][0] < 40
    assert model.predict(X, verbose=0).argmax(axis=1).max() < 2

    def flipped(x, y):
        return tf.where(tf.random.uniform([]) < 0.5, x, -x), y

    streams = [s.samples for s in (LABELS.train, LABELS.validation, LABELS.test)]
    dataset = data.from_datasets("streams", streams[0].map(flipped), *streams[1:], "abc")
    assert dataset.train.count == LABELS.train.count
    history, _ = trained(network(L.Dense(3)), dataset, recipe(network(L.Dense(3)), dataset))
    assert len(history["loss"]) == 8


@pytest.mark.slow
def test_a_loop_and_callbacks_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import tensorflow as tf\n\n\n"
        "class Counter(tf.keras.callbacks.Callback):\n"
        "    seen = []\n\n"
        "    def __init__(self, name='a'):\n"
        "        super().__init__()\n        self.name = name\n\n"
        "    def on_epoch_end(self, epoch, logs=None):\n        self.seen.append(self.name)\n"
        "        open('seen.txt', 'a').write(self.name)\n\n\n"
        "def loop(model, batches, validation, train, callbacks, times=1):\n"
        "    return model.fit(batches, epochs=train.epochs * times, validation_data=validation,\n"
        "                     callbacks=callbacks, verbose=0)\n"
    )
    from dataclasses import replace

    model = network(L.Dense(3))
    train = {
        "callbacks": [{"ref": "mine.py:Counter", "args": {"name": "b"}}],
        "ref": "mine.py:loop",
        "args": {"times": 2},
    }
    found = replace(recipe(model, LABELS, **train), base=tmp_path)
    here = tmp_path / "seen.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        history, _ = trained(model, LABELS, found, **train, epochs=3)
    assert len(history["loss"]) == 6
    assert here.read_text() == "bbbbbb"


@pytest.mark.parametrize(
    ("model", "dataset", "message"),
    [
        (
            lambda: network(L.Dense(3)),
            data.from_arrays("d", X, 1 + KIND),
            "labels begin at 1, but must count from 0: use y - 1",
        ),
        (lambda: network(L.Dense(3), inputs=5), LABELS, r"takes \[5\] but the data gives \[6\]"),
        (lambda: network(L.Dense(2)), LABELS, r"outputs \[2\] but the data has 3 classes"),
        (
            lambda: network(L.Dense(3)),
            data.from_arrays("two", {"a": X, "b": X}, KIND),
            r"has 1 inputs \(.*\) but the data has 2 \(a, b\)",
        ),
        (
            lambda: network(L.Dense(3)),
            data.from_arrays("two", X, {"a": KIND, "b": KIND}),
            "has 1 outputs .* targets for 2",
        ),
    ],
)
def test_what_does_not_fit_is_said(model, dataset, message):
    with pytest.raises(UsageError, match=message):
        recipe(model(), dataset)


@pytest.mark.parametrize(
    ("activation", "loss", "said"),
    [
        (None, "sparse_categorical_crossentropy", "the loss expects probabilities but output"),
        (None, tf.keras.losses.SparseCategoricalCrossentropy(), "loss expects probabilities"),
        (None, tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), None),
        (
            "softmax",
            tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "the loss expects logits",
        ),
        ("softmax", "sparse_categorical_crossentropy", None),
    ],
)
def test_a_loss_that_does_not_take_what_the_model_gives_is_told(activation, loss, said):
    from edgesparse.methods.training import compile_args
    from edgesparse.methods.training.recipe import compiled_args

    x, y = np.zeros((30, 4), np.float32), np.repeat([0, 1, 2], 10)
    found = data.from_arrays("toy", x, y)
    model = tf.keras.Sequential(
        [tf.keras.Input((4,)), tf.keras.layers.Dense(3, activation=activation)]
    )
    model.compile(loss=loss)
    train = Train()
    recipe = build_recipe(model, found, train, compiled=compiled_args(model, train))
    lines = compile_args.loss_warnings(train, recipe)
    assert len(lines) == (said is not None)
    assert said is None or said in lines[0]
    # The same where the pipeline names the loss.
    if isinstance(loss, str):
        named = Train(loss={"name": "SparseCategoricalCrossentropy"})
        recipe = build_recipe(model, found, named, compiled=compiled_args(model, named))
        assert len(compile_args.loss_warnings(named, recipe)) == (activation is None)


def test_data_with_its_channels_first_is_refused_with_the_way_out():
    model = tf.keras.Sequential([tf.keras.Input((8, 6, 3)), L.Flatten(), L.Dense(2)])
    dataset = data.from_arrays("x", RANDOM.random((50, 3, 8, 6)), np.arange(50) % 2)
    with pytest.raises(UsageError, match=r"channels first: np.moveaxis\(x, 1, -1\)"):
        recipe(model, dataset)
