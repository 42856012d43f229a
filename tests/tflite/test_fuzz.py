"""1 000 mutated .tflite files: each is read, or told in one line."""

import resource

import numpy as np
import pytest

from edgesparse.spec.errors import EdgesparseError
from edgesparse.tflite.format.inspect import inspect
from edgesparse.tflite.runtimes.compatibility import Machine, Profile
from edgesparse.tflite.runtimes.explain import describe, explain
from tests.conftest import converters_own
from tests.tools.fuzz import chances, mutated_bytes


@pytest.fixture(scope="module")
def contents():
    """Small models, dense and sparse, in floats and int8."""
    import tensorflow as tf

    from edgesparse.tflite.convert import convert

    tf.keras.utils.set_random_seed(1)
    model = tf.keras.Sequential(
        [tf.keras.Input((64,)), tf.keras.layers.Dense(48, "relu"), tf.keras.layers.Dense(10)]
    )
    kernel = model.layers[0].kernel
    kernel.assign(kernel * (np.random.default_rng(1).random(kernel.shape) < 0.2))
    samples = np.random.default_rng(2).random((4, 64), dtype=np.float32)
    return [convert(model, "f32", samples), convert(model, "int8", samples), converters_own(model)]


@pytest.fixture(scope="module")
def profile():
    return Profile(Machine("tflite-runtime", "2.14.0", "x86_64"))


@pytest.mark.slow
def test_mutated_models_never_show_a_traceback(contents, profile):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = 0
    for chance in chances(1000):
        content = mutated_bytes(chance.choice(contents), chance)
        try:
            inspect(content)
            describe(content)
            explain(content, profile)
            read += 1
        except EdgesparseError as error:
            assert len(str(error)) < 2000
    assert 0 < read < 1000
    # Whatever they claim to hold, they are a megabyte.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000
