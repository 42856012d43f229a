"""Images with vertical or horizontal stripes."""

import numpy as np

from edgesparse.data import from_arrays


def stripes(size=8, samples=200):
    """Two classes of images of size x size x 1."""
    random = np.random.default_rng(0)
    y = random.integers(0, 2, samples)
    x = np.zeros((samples, size, size, 1), np.float32)
    for image, label, start in zip(x, y, random.integers(0, 2, samples), strict=True):
        image[start::2] = 1
        if label:
            image[:] = image.transpose(1, 0, 2)
    return from_arrays("stripes", x + random.normal(0, 0.1, x.shape).astype(np.float32), y)
