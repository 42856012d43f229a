import numpy as np
import pytest
import tensorflow as tf

from edgesparse.tflite.convert import convert
from edgesparse.tflite.format import converter_fixes
from tests.tflite.test_convert import answers


@pytest.fixture(scope="module")
def two_ways():
    """The directions differ in range, and one of them has a bias that keeps it far from zero."""
    tf.keras.utils.set_random_seed(5)
    inputs = tf.keras.Input((12, 8))
    both = tf.keras.layers.Bidirectional(tf.keras.layers.LSTM(4))
    model = tf.keras.Model(inputs, both(inputs))
    both.forward_layer.cell.bias.assign(np.repeat([1.0, 1.0, 2.0, 1.0], 4))
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "tolerance"), [("int8", 0.03), ("int16x8", 0.03)])
def test_both_directions_of_an_lstm_answer_right(two_ways, scheme, tolerance, monkeypatch):
    samples = np.random.default_rng(0).random((60, 12, 8)).astype(np.float32)
    expected = two_ways(samples).numpy()
    off = np.abs(answers(convert(two_ways, scheme, samples), samples[:8]) - expected[:8]).max()
    assert off < tolerance
    if scheme == "int8":  # The converter alone is wrong about it.
        monkeypatch.setattr(converter_fixes, "fix_lstm_states", lambda content: content)
        plain = answers(convert(two_ways, scheme, samples), samples[:8])
        assert np.abs(plain - expected[:8]).max() > 5 * tolerance


def test_a_file_without_fault_stays_as_it_is(sparse_dense_layer, samples):
    content = convert(sparse_dense_layer, "int8", samples)
    assert converter_fixes.fix_lstm_states(content) is content
