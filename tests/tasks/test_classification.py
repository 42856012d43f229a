import numpy as np
import pytest

from edgesparse.data import from_arrays
from edgesparse.spec.errors import UsageError
from edgesparse.spec.pipeline import Train
from edgesparse.tasks import classification

OUTPUTS = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]], np.float32)
TARGETS = np.array([0, 1, 1, 1])


def test_outputs_are_judged_by_their_highest_value():
    assert classification.right(OUTPUTS, TARGETS) == 3
    assert classification.judge(OUTPUTS, TARGETS) == 0.75


def test_a_pixels_dimensions_of_one_make_no_difference():
    assert classification.judge(OUTPUTS.reshape(4, 1, 1, 2), TARGETS) == 0.75


def test_what_is_no_number_is_never_right():
    outputs = np.full((4, 3), np.nan, np.float32)
    assert classification.judge(outputs, np.array([0, 0, 1, 2])) == 0.0
    outputs[0] = [1, 0, 0]
    assert classification.judge(outputs, np.array([0, 0, 1, 2])) == 0.25


def test_the_loss_knows_logits():
    logits = np.array([[2.0, -1.0]], np.float32)
    softmax = np.exp(logits) / np.exp(logits).sum()
    of_softmax = classification.loss(Train())([0], softmax)
    assert float(of_softmax) == pytest.approx(-np.log(softmax[0, 0]), abs=1e-5)
    of_logits = classification.loss(Train(from_logits=True))([0], logits)
    assert float(of_logits) == pytest.approx(float(of_softmax), abs=1e-5)


def test_one_value_for_each_class_is_needed():
    import tensorflow as tf

    layers = tf.keras.layers
    data = from_arrays("d", np.zeros((60, 4)), np.arange(60) % 3)
    classification.check_outputs(tf.keras.Sequential([layers.Dense(3, input_shape=(4,))]), data)
    wrong = tf.keras.Sequential([layers.Dense(2, input_shape=(4,))])
    with pytest.raises(UsageError, match=r"the model gives \[2\] but the data has 3 classes"):
        classification.check_outputs(wrong, data)
