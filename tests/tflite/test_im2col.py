"""What a convolution sees."""

import numpy as np
import pytest
import tensorflow as tf

from edgesparse.tflite.im2col import patches

random = np.random.default_rng(0)


class Options:
    def __init__(self, stride, rate, padding):
        self.strideH = self.strideW = stride
        self.dilationHFactor = self.dilationWFactor = rate
        self.padding = padding


@pytest.mark.parametrize(("stride", "rate"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize(("padding", "name"), [(0, "SAME"), (1, "VALID")])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 5)])
def test_patches_are_what_a_convolution_sees(stride, rate, padding, name, kernel):
    values = random.normal(size=(1, 11, 10, 3)).astype(np.float32)
    weights = random.normal(size=(*kernel, 3, 6)).astype(np.float32)
    expected = tf.nn.conv2d(values, weights, stride, name, dilations=rate).numpy()
    rows = patches(values, (6, *kernel, 3), Options(stride, rate, padding))
    assert rows @ weights.reshape(-1, 6) == pytest.approx(expected.reshape(-1, 6), abs=1e-4)
