"""Metrics against values computed by hand or by scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from edgesparse.spec.errors import UsageError
from edgesparse.spec.task import TaskSpec
from edgesparse.tasks import (
    build,
    classification,
    multi_label,
    reconstruction,
    regression,
    segmentation,
)
from edgesparse.tasks.resolve import Output, Target, resolve
from edgesparse.tasks.task import Task

RANDOM = np.random.default_rng(0)


def values(task, outputs, targets):
    return {metric.name: metric.compute(outputs, targets) for metric in task.metrics}


def test_regression_metrics_equal_scikit_learn():
    targets, outputs = RANDOM.normal(size=50), RANDOM.normal(size=(50, 1))
    scores = values(regression.task({}), outputs, targets)
    assert scores["mae"] == pytest.approx(
        sklearn_metrics.mean_absolute_error(targets, outputs[:, 0])
    )
    assert scores["rmse"] ** 2 == pytest.approx(
        sklearn_metrics.mean_squared_error(targets, outputs[:, 0])
    )
    assert scores["r2"] == pytest.approx(sklearn_metrics.r2_score(targets, outputs[:, 0]))
    outputs[3] = np.nan
    assert values(regression.task({}), outputs, targets)["mae"] > 1e12


def test_multi_label_metrics_equal_scikit_learn():
    targets = RANDOM.integers(0, 2, (40, 3))
    outputs = RANDOM.random((40, 3)).astype(np.float32)
    scores = values(multi_label.task({"logits": False}), outputs, targets)
    expected = sklearn_metrics.average_precision_score(targets, outputs, average="macro")
    assert scores["mAP"] == pytest.approx(expected)
    assert scores["f1"] == pytest.approx(
        sklearn_metrics.f1_score(targets, outputs > 0.5, average="micro")
    )
    assert scores["exact"] == pytest.approx(sklearn_metrics.accuracy_score(targets, outputs > 0.5))


def test_segmentation_metrics():
    targets = np.array([[[0, 0], [1, 1]], [[0, 1], [2, 2]]])
    outputs = np.eye(3)[[[[0, 1], [1, 1]], [[0, 1], [2, 0]]]]
    scores = values(segmentation.task({"classes": ["a", "b", "c"]}), outputs, targets)
    assert scores["mean-iou"] == pytest.approx(np.mean([2 / 4, 3 / 4, 1 / 2]))
    assert scores["pixel-accuracy"] == pytest.approx(6 / 8)
    predicted = outputs.argmax(axis=-1).astype(np.int16)
    assert values(segmentation.task({"classes": ["a", "b", "c"]}), predicted, targets) == scores
    binary = segmentation.task({"classes": ["no", "yes"], "binary": True, "logits": True})
    with pytest.raises(UsageError, match="targets contain classes 0 to 2; the task has 2: 0 to 1"):
        values(segmentation.task({"classes": ["a", "b"]}), outputs[..., :2], targets)
    masks = (targets > 0).astype(int)
    assert values(binary, masks[..., None] * 2.0 - 1.0, masks)["mean-iou"] == 1.0


def test_reconstruction_metrics():
    x = RANDOM.random((20, 4))
    scores = values(reconstruction.task({"peak": 2.0}), x + 0.1, x)
    assert scores["rmse"] == pytest.approx(0.1)
    assert scores["psnr"] == pytest.approx(10 * np.log10(4 / 0.01))
    labels = np.arange(20) % 2
    outputs = x + 0.1 * labels[:, None]
    targets = np.concatenate([labels[:, None], x], axis=1)
    assert values(reconstruction.task({"labels": True}), outputs, targets)["auc"] == 1.0
    squared = RANDOM.integers(0, 5, 40).astype(np.float64)  # With ties.
    anomalies = RANDOM.integers(0, 2, 40).astype(np.float64)
    expected = sklearn_metrics.roc_auc_score(anomalies, squared)
    assert reconstruction.auc(squared, anomalies) == pytest.approx(expected)
    assert reconstruction.auc(squared, np.zeros(40)) == 0.5


@pytest.mark.parametrize(
    ("task", "shape", "classes"),
    [
        (classification.task({"classes": ["a", "b", "c"]}), (12, 3), 3),
        (segmentation.task({"classes": ["a", "b", "c"]}), (12, 4, 4, 3), 3),
        (multi_label.task({"logits": False}), (12, 3), 0),
        (regression.task({}), (12, 3), 0),
        (reconstruction.task({}), (12, 3), 0),
        (reconstruction.task({"labels": True}), (12, 3), 0),
    ],
    ids=lambda value: value.name if isinstance(value, Task) else "",
)
def test_a_metric_of_drawn_samples_is_that_of_their_outputs(task, shape, classes):
    outputs = RANDOM.random(shape)
    targets = RANDOM.integers(0, classes, shape[:-1]) if classes else RANDOM.random(shape)
    if task.metrics[0].name == "auc":
        targets = np.concatenate([np.arange(12)[:, None] % 2, targets], axis=1)
    drawn = RANDOM.integers(12, size=12)
    for metric in task.metrics:
        expected = metric.compute(outputs[drawn], targets[drawn])
        assert metric.of_samples(outputs, targets)(drawn) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("output", "target", "classes", "name", "more"),
    [
        (Output("o", (3,), "softmax"), Target("y", (), True), 3, "classification",
         {"logits": False, "binary": False}),
        (Output("o", (3,), "linear"), Target("y", (), True), 3, "classification",
         {"logits": True}),
        (Output("o", (1,), "sigmoid"), Target("y", (), True, True), 2, "classification",
         {"logits": False, "binary": True}),
        (Output("o", (3,), "softmax"), Target("y", (3,), False, True), 0, "classification",
         {"one_hot": True}),
        (Output("o", (3,), "sigmoid"), Target("y", (3,), False, True), 0, "multi-label",
         {"logits": False}),
        (Output("o", (1,), "linear"), Target("y", (), False), 0, "regression", {}),
        (Output("o", (4,), "linear"), Target("y", (4,), False), 0, "regression", {}),
        (Output("o", (8, 8, 3), "softmax"), Target("y", (8, 8), True), 3, "segmentation", {}),
        (Output("o", (8, 8, 1), "sigmoid"), Target("y", (8, 8, 1), True, True), 2,
         "segmentation", {"binary": True}),
        (Output("o", (8,), "linear"), Target("y", (8,), False, False, True), 0,
         "reconstruction", {}),
    ],
)  # fmt: skip
def test_task_is_inferred_from_model_and_data(output, target, classes, name, more):
    names = [str(i) for i in range(classes)]
    resolved = resolve(TaskSpec(), output, target, names, None)
    assert resolved["name"] == name
    assert more.items() <= resolved.items()
    assert build(resolved, None).name == name


@pytest.mark.parametrize(
    ("spec", "output", "target", "message"),
    [
        ({}, (2,), Target("y", (), True), "the model outputs [2] but the data has 3 classes"),
        ({}, (8, 8, 2), Target("y", (8, 8), True), "the masks have 3 classes"),
        ({}, (4, 4, 3), Target("y", (8, 8), True), "a class for each pixel"),
        ({"name": "regression"}, (2,), Target("y", (), False), "regression needs one number"),
        ({"name": "multi-label"}, (3,), Target("y", (3,), False), "0 or 1 for each label"),
    ],
)
def test_mismatch_is_an_error(spec, output, target, message):
    with pytest.raises(UsageError) as error:
        resolve(TaskSpec(**spec), Output("o", output, "linear"), target, ["a", "b", "c"], None)
    assert message in str(error.value)


def test_unknown_metric_lists_the_available():
    with pytest.raises(
        UsageError, match="task regression has no metric 'acc'; available: mae, rmse, r2"
    ):
        regression.task({}).metric("acc")


def test_custom_task(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\n\ndef quantile(q=0.9):\n"
        "    return {'loss': 'mae', 'minimize': ['worst'],\n"
        "            'metrics': {'worst': lambda o, t: float(np.quantile(abs(o - t), q))}}\n\n\n"
        "def nothing():\n    return 3\n\n\n"
        "def old():\n    return {'loss': 'mae', 'metrics': {'a': max}, 'lowest': ['a']}\n"
    )
    task = build({"name": "ref", "ref": "mine.py:quantile", "args": {"q": 0.5}}, tmp_path)
    (metric,) = task.metrics
    assert (metric.name, metric.direction, task.loss()) == ("worst", "minimize", "mae")
    assert metric.compute(np.array([1.0, 2.0, 3.0]), np.zeros(3)) == 2.0
    assert metric.drop(1.0, 1.5) == 0.5
    with pytest.raises(UsageError, match="must return a mapping with 'loss' and 'metrics'"):
        build({"name": "ref", "ref": "mine.py:nothing"}, tmp_path)
    with pytest.raises(UsageError, match="unknown key 'lowest'; valid keys: keras_metrics, loss"):
        build({"name": "ref", "ref": "mine.py:old"}, tmp_path)


def test_chance_level_is_the_metric_of_constant_outputs():
    labels = np.array([0, 1, 1, 2])
    task = build({"name": "classification", "classes": ["a", "b", "c"]}, Path())
    assert task.chance(task.metric("accuracy"), labels) == 0.5
    binary = {"name": "classification", "classes": ["a", "b"], "binary": True, "logits": True}
    task = build(binary, Path())
    assert task.chance(task.metric("accuracy"), labels[1:] - 1) == pytest.approx(2 / 3)
    # Undefined if all samples have one class.
    assert task.chance(task.metric("accuracy"), np.zeros(4, int)) is None
    numbers = np.array([1.0, 2.0, 6.0])
    task = build({"name": "regression"}, Path())
    assert task.chance(task.metric("mae"), numbers) == 2.0
    assert task.chance(task.metric("r2"), numbers) == 0.0
    task = build({"name": "reconstruction", "labels": True}, Path())
    anomalies = np.array([[0, 1.0, 2.0], [1, 3.0, 4.0], [0, 1.0, 0.0]])
    assert task.chance(task.metric("auc"), anomalies) == 0.5
    task = build({"name": "segmentation", "classes": ["a", "b"]}, Path())
    masks = np.array([[[0, 0], [0, 1]], [[1, 1], [1, 0]]])
    assert task.chance(task.metric("pixel-accuracy"), masks) == 0.5
    task = build({"name": "multi-label"}, Path())
    assert task.chance(task.metric("mAP"), np.array([[1, 0], [0, 0], [1, 1], [0, 1]])) == 0.5
