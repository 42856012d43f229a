from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from edgesparse import data
from edgesparse.methods import quantize_aware
from edgesparse.methods.magnitude import magnitude
from edgesparse.methods.training import checkpoints, distillation
from edgesparse.methods.training.fitting import fit, recipe_of
from edgesparse.methods.training.recipe import build_recipe
from edgesparse.spec.sparsify import Magnitude
from edgesparse.spec.step import Distill
from edgesparse.spec.training import Train
from tests.methods.conftest import quiet
from tests.methods.digits import load

L = tf.keras.layers


def network(activation="softmax", outputs=10, seed=5):
    tf.keras.utils.set_random_seed(seed)
    i = tf.keras.Input((8, 8, 1))
    x = L.Dense(48, activation="relu", name="wide")(L.Flatten()(i))
    return tf.keras.Model(i, L.Dense(outputs, activation=activation, name="out")(x))


def recipe(*tasks, activations=None):
    names = [f"out{n}" for n in range(len(tasks))]
    resolved = tasks[0] if len(tasks) == 1 else {"outputs": dict(zip(names, tasks, strict=True))}
    return SimpleNamespace(
        tasks=dict.fromkeys(names),
        resolved=resolved,
        loss_weights=[1.0] * len(names),
        output_activations=dict(zip(names, activations or ["linear"] * len(names), strict=True)),
    )


CLASSES = {"name": "classification", "logits": True, "binary": False}
LABELS = {"name": "multi-label", "logits": True}
NUMBERS = {"name": "regression"}
TEACHER = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]], np.float32)
STUDENT = np.array([[1.0, 0.0, 0.5], [1.0, 2.0, -4.0]], np.float32)


def measured(recipe, teachers, students, temperature=4.0):
    tensors = ([tf.constant(v) for v in values] for values in (teachers, students))
    return float(distillation.distance(recipe, *tensors, temperature))


def softmax(z):
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_classes_are_compared_by_their_softened_probabilities():
    p, q = softmax(TEACHER / 4), softmax(STUDENT / 4)
    expected = 16 * np.mean(np.sum(p * np.log(p / q), -1))
    assert measured(recipe(CLASSES), [TEACHER], [STUDENT]) == pytest.approx(expected, rel=1e-4)
    ended = recipe({**CLASSES, "logits": False}, activations=["softmax"])
    probabilities = [softmax(TEACHER)], [softmax(STUDENT)]
    assert measured(ended, *probabilities) == pytest.approx(expected, rel=1e-3)


def test_labels_are_compared_one_by_one():
    p, q = sigmoid(TEACHER / 4), sigmoid(STUDENT / 4)
    expected = 16 * np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    assert measured(recipe(LABELS), [TEACHER], [STUDENT]) == pytest.approx(expected, rel=1e-4)
    ended = recipe({**LABELS, "logits": False}, activations=["sigmoid"])
    probabilities = [sigmoid(TEACHER)], [sigmoid(STUDENT)]
    assert measured(ended, *probabilities) == pytest.approx(expected, rel=1e-3)


def test_numbers_are_compared_by_their_squared_difference_and_outputs_are_summed():
    squared = float(np.mean((TEACHER - STUDENT) ** 2))
    assert measured(recipe(NUMBERS), [TEACHER], [STUDENT]) == pytest.approx(squared, rel=1e-5)
    both = measured(recipe(NUMBERS, CLASSES), [TEACHER] * 2, [STUDENT] * 2)
    alone = measured(recipe(CLASSES), [TEACHER], [STUDENT])
    assert both == pytest.approx(squared + alone, rel=1e-5)


def agreement(first, second, dataset):
    x = data.arrays(dataset.test, 10_000)[0]["x"]
    answers = [np.argmax(model(x, training=False), -1) for model in (first, second)]
    return float(np.mean(answers[0] == answers[1]))


@pytest.mark.slow
@pytest.mark.parametrize("activation", [pytest.param("softmax", marks=pytest.mark.full), "linear"])
def test_a_pruned_model_agrees_with_its_teacher(activation):
    dataset = load()
    teacher = network(activation)
    settings = Train(epochs=8, learning_rate=5e-3)
    fit(teacher, dataset, settings, quiet)
    # A third of the labels of the fine-tuning is wrong: only the teacher knows better.
    wrong = dataset.train.samples.enumerate().map(
        lambda i, sample: (sample[0], tf.where(i % 3 == 0, (sample[1] + 1) % 10, sample[1]))
    )
    noisy = replace(dataset, train=data.Split(dataset.train.count, wrong))
    step = Magnitude(method="magnitude", sparsity=0.7, epochs=4, schedule="constant")
    agreed = {}
    for weight in (None, 0.7):
        student = network(activation)
        student.set_weights(teacher.get_weights())
        tutor = distillation.Teacher(teacher, Distill(weight=weight)) if weight else None
        train = settings.model_copy(update={"epochs": 4, "learning_rate": 2e-3})
        magnitude(student, replace(noisy, teacher=tutor), train, step, quiet)
        agreed[weight] = agreement(teacher, student, dataset)
        # Nothing is left on the model.
        assert student.train_step.__func__ is tf.keras.Model.train_step
    assert agreed[0.7] >= agreed[None]
    assert agreed[0.7] > 0.8


@pytest.mark.slow
def test_outputs_are_computed_once_unless_samples_differ_in_each_pass():
    dataset = load()
    teacher = distillation.Teacher(network(), Distill())
    recipe = recipe_of(network(), dataset, Train())
    answers = teacher.answers(dataset, recipe)
    assert answers is teacher.answers(dataset, recipe)
    samples = dataset.train.samples
    (x, _), (answer,) = next(iter(tf.data.Dataset.zip((samples, answers))))
    np.testing.assert_allclose(answer, teacher.infer(x[None])[0], rtol=1e-5)
    generator = tf.random.Generator.from_seed(1)
    noisy = samples.map(lambda x, y: (x + generator.normal(x.shape), y))
    augmented = replace(dataset, train=data.Split(dataset.train.count, noisy))
    assert teacher.answers(augmented, recipe) is None
    train = Train(epochs=1, class_weight="balanced")
    for learned in (dataset, augmented):
        student = network(seed=6)
        history = fit(student, replace(learned, teacher=teacher), train, quiet)
        assert np.isfinite(history["loss"]).all()


@pytest.mark.slow
def test_penalties_keep_their_weight_and_targets_of_several_outputs_can_be_unused():
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 6)).astype(np.float32)
    y = {"kind": random.integers(0, 3, 200), "size": x[:, :1] * 2}

    def model(seed):
        tf.keras.utils.set_random_seed(seed)
        i = tf.keras.Input((6,))
        hidden = L.Dense(16, activation="relu", kernel_regularizer="l2")(i)
        outputs = [L.Dense(3, name="kind")(hidden), L.Dense(1, name="size")(hidden)]
        return tf.keras.Model(i, outputs)

    dataset = data.from_arrays("two", x, y)
    teacher, student = model(1), model(2)
    dataset = replace(dataset, recipe=build_recipe(teacher, dataset, Train()))
    learned = replace(dataset, teacher=distillation.Teacher(teacher, Distill(weight=1)))

    def apart():
        pairs = zip(teacher(x), student(x), strict=True)
        return [float(np.mean((a - b) ** 2)) for a, b in pairs]

    before = apart()
    fit(student, learned, Train(epochs=10, learning_rate=1e-2), quiet)
    assert all(after < 0.5 * first for after, first in zip(apart(), before, strict=True))


@pytest.mark.slow
def test_training_resumes_and_works_with_quantization(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SAVED_EVERY_SECONDS", 0.0)
    dataset = load()
    teacher = distillation.Teacher(network(), Distill())
    train = Train(epochs=3, learning_rate=1e-3)

    class Interrupted(Exception):
        pass

    def stop(share, text):
        if share > 0.6:
            raise Interrupted

    def learned():
        kept = checkpoints.StageCheckpoints(tmp_path / "interrupted")
        return replace(dataset, teacher=teacher, checkpoints=kept)

    student = network(seed=6)
    with pytest.raises(Interrupted):
        fit(student, learned(), train, stop)
    assert student.train_step.__func__ is tf.keras.Model.train_step
    history = fit(network(seed=6), learned(), train, quiet)
    assert "resumed_epoch" in history

    quantized = replace(dataset, teacher=teacher)
    prepared, history = quantize_aware.quantize_aware(network(seed=6), quantized, train, quiet)
    assert len(history["loss"]) == 3
    assert prepared.model.count_params()
