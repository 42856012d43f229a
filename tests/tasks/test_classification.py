import numpy as np
import pytest

from edgesparse.tasks.classification import confusion, macro_f1, task

OUTPUTS = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]], np.float32)
TARGETS = np.array([0, 1, 1, 1])


def of(count=2, **more):
    return task({"classes": [str(i) for i in range(count)], **more})


def value(outputs, targets, metric="accuracy", **more):
    count = more.pop("count", outputs.reshape(len(outputs), -1).shape[1])
    return of(count, **more).metric(metric).compute(outputs, targets)


def test_accuracy_is_of_the_argmax():
    assert value(OUTPUTS, TARGETS) == 0.75
    assert value(OUTPUTS, np.eye(2)[TARGETS], one_hot=True) == 0.75


def test_spatial_dimensions_of_one_are_ignored():
    assert value(OUTPUTS.reshape(4, 1, 1, 2), TARGETS) == 0.75


def test_non_finite_outputs_are_never_correct():
    outputs = np.full((4, 3), np.nan, np.float32)
    assert value(outputs, np.array([0, 0, 1, 2])) == 0.0
    outputs[0] = [1, 0, 0]
    assert value(outputs, np.array([0, 0, 1, 2])) == 0.25
    outputs = np.array([[np.nan], [0.9]], np.float32)
    assert value(outputs, np.array([0, 1]), binary=True, count=2) == 0.5


def test_binary_output_is_the_second_class():
    outputs, targets = np.array([[0.2], [0.6], [0.9], [0.4]]), np.array([0, 1, 1, 1])
    assert value(outputs, targets, binary=True, count=2) == 0.75
    # The same outputs as logits are all above zero.
    assert value(outputs, targets, binary=True, count=2, logits=True) == 0.75
    assert value(outputs - 0.5, targets, binary=True, count=2, logits=True) == 0.75
    assert value(outputs - 0.5, targets, binary=True, count=2) == 0.25


def test_top_k_accuracy():
    outputs = np.tile(np.arange(10.0), (3, 1))
    assert value(outputs, np.array([9, 7, 0]), "top-5") == pytest.approx(2 / 3)
    assert value(outputs, np.array([9, 7, 0]), "top-2", top_k=2) == pytest.approx(1 / 3)
    assert [m.name for m in of(3).metrics] == ["accuracy", "f1"]


def test_confusion_recall_and_f1():
    details = of().details(OUTPUTS, TARGETS)
    assert details == {
        "recall": [1.0, pytest.approx(2 / 3, abs=1e-6)],
        "confusion": [[1, 0], [1, 2]],
    }
    matrix = confusion(np.array([0, 1, 0, 1]), TARGETS, 2)
    # Precision and recall: 1/2 and 1, 1 and 2/3.
    assert macro_f1(matrix) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert value(OUTPUTS, TARGETS, "f1") == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_loss_from_logits():
    logits = np.array([[2.0, -1.0]], np.float32)
    softmax = np.exp(logits) / np.exp(logits).sum()
    of_softmax = of(logits=False).loss()([0], softmax)
    assert float(of_softmax) == pytest.approx(-np.log(softmax[0, 0]), abs=1e-5)
    of_logits = of(logits=True).loss()([0], logits)
    assert float(of_logits) == pytest.approx(float(of_softmax), abs=1e-5)
