"""What every layer must do: gradients, saving, and each scheme on each runtime."""

import numpy as np
import tensorflow as tf

from edgesparse.tflite.convert import convert
from edgesparse.tflite.format.signature import in_order, read_signature
from tests.methods.runtimes import RUNTIMES, share_within

TOLERANCE = {"f32": 1e-4, "f16": 1e-2, "dynamic": 0.15, "int8": 0.2, "int16x8": 0.05}


def check_gradients(layer, inputs, place=0):
    """Of a scalar made of what it gives, against differences of it."""
    given = [tf.constant(x) for x in inputs]
    weights = tf.constant(
        np.random.default_rng(1).normal(size=layer_shape(layer, given)), "float32"
    )

    def value():
        return tf.reduce_sum(tf.cast(called(layer, given), tf.float32) * weights)

    with tf.GradientTape() as tape:
        loss = value()
    found = tape.gradient(loss, layer.trainable_weights)
    for variable, gradient in zip(layer.trainable_weights, found, strict=True):
        gradient = tf.convert_to_tensor(gradient).numpy()
        flat, step = variable.numpy().copy(), 1e-2
        for index in np.random.default_rng(2).integers(0, flat.size, 4):
            where = np.unravel_index(index, flat.shape)
            sides = []
            for sign in (1, -1):
                moved = flat.copy()
                moved[where] += sign * step
                variable.assign(moved)
                sides.append(float(value()))
            variable.assign(flat)
            expected = (sides[0] - sides[1]) / (2 * step)
            scale = max(1.0, np.abs(gradient).max())
            assert abs(gradient[where] - expected) < 0.05 * scale, (variable.name, where)


def layer_shape(layer, given):
    return called(layer, given).shape


def called(layer, given):
    return layer(given if len(given) > 1 else given[0])


def check_saved(model, inputs, folder):
    """Read again, it answers the same; so does a copy from its configuration."""
    path = folder / "model.keras"
    model.save(path)
    x = inputs[0] if len(inputs) == 1 else list(inputs)
    expected = model(x).numpy()
    np.testing.assert_allclose(tf.keras.models.load_model(path)(x).numpy(), expected, atol=1e-6)
    clone = tf.keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(clone(x).numpy(), expected, atol=1e-6)


def check_converted(model, inputs, folder, schemes=tuple(TOLERANCE), least=0.9):
    """In every scheme, on every runtime, for samples [n, ...] of each input."""
    x = [np.asarray(one) for one in inputs]
    expected = np.concatenate(
        [model([tf.constant(v[i : i + 1]) for v in x] if len(x) > 1 else x[0][i : i + 1]).numpy()
         for i in range(len(x[0]))]
    )  # fmt: skip
    for scheme in schemes:
        content, path = convert(model, scheme, x, one_scale=True), folder / f"{scheme}.tflite"
        order = [spec.index for spec in in_order(read_signature(content).inputs, model.input_names)]
        named = {f"x{i}": values for i, values in enumerate(x)}
        path.write_bytes(content)
        np.savez(path.with_suffix(".npz"), y=expected, order=order, **named)
        wanted = 1.0 if scheme in ("f32", "f16") else least
        for runtime in RUNTIMES:
            within = share_within(runtime, path, TOLERANCE[scheme])
            assert within >= wanted, (runtime, scheme)
