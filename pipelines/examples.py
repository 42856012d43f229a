"""Data, models and a training loop of the pipelines beside this file, as a user writes them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_diabetes, load_digits

from edgesparse.data import Dataset, from_arrays, transforms
from edgesparse.data.image_folder import image_folder

L = tf.keras.layers


def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Images float32 [1797, 8, 8, 1], 0 to 1, and labels."""
    x, y = load_digits(return_X_y=True)
    return (x / 16).reshape(-1, 8, 8, 1).astype(np.float32), y


def diabetes() -> Dataset:
    """Ten measurements of 442 patients, and how far the disease is a year later."""
    x, y = load_diabetes(return_X_y=True)
    return from_arrays("diabetes", x * 20, y, transforms=transforms.numbers(20))


def regressor(width: int = 64) -> tf.keras.Model:
    """Two layers; it starts from the targets' mean, for they are 25 to 346."""
    inputs = tf.keras.Input((10,))
    x = L.Dense(width, "relu")(inputs)
    x = L.Dense(width, "relu")(x)
    mean = tf.keras.initializers.Constant(150)
    return tf.keras.Model(inputs, L.Dense(1, bias_initializer=mean)(x))


def unusual_digits(held_out: int = 8) -> Dataset:
    """Digits as 64 values; the one held out is unusual, label 1, and never trained on."""
    images, digits = digit_images()
    return from_arrays("unusual", images.reshape(-1, 64), (digits == held_out).astype(int))


def canvases(count: int = 900, size: int = 24) -> Dataset:
    """Two digits on a noisy canvas [size, size, 1]; each pixel is background, or of a digit below
    5, or of one from 5."""
    random = np.random.default_rng(0)
    images, digits = digit_images()
    x = 0.15 * random.random((count, size, size, 1), dtype=np.float32)
    y = np.zeros((count, size, size), np.int64)
    for number in range(count):
        for half in range(2):
            chosen = random.integers(len(images))
            top = random.integers(0, size - 7)
            left = random.integers(0, size // 2 - 7) + half * size // 2
            place = (number, slice(top, top + 8), slice(left, left + 8))
            x[place] = np.maximum(x[place], images[chosen])
            y[place][images[chosen, ..., 0] > 0.3] = 1 + (digits[chosen] >= 5)
    return from_arrays("canvases", x, y, ["background", "below 5", "from 5"])


def segmenter(size: int = 24, width: int = 24) -> tf.keras.Model:
    """A small U-Net (Ronneberger et al. 2015): down by two, and up again with what was there."""
    inputs = tf.keras.Input((size, size, 1))

    def block(x: tf.Tensor, filters: int) -> tf.Tensor:
        for _ in range(2):
            x = L.BatchNormalization()(L.Conv2D(filters, 3, padding="same", use_bias=False)(x))
            x = L.ReLU()(x)
        return x

    fine = block(inputs, width)
    middle = block(L.MaxPooling2D()(fine), 2 * width)
    deep = block(L.MaxPooling2D()(middle), 2 * width)
    x = block(L.Concatenate()([L.UpSampling2D()(deep), middle]), 2 * width)
    x = block(L.Concatenate()([L.UpSampling2D()(x), fine]), width)
    return tf.keras.Model(inputs, L.Conv2D(3, 1, activation="softmax")(x))


MOTIONS = ("still", "walk", "run", "shake", "turn")


def motions(count: int = 1200, length: int = 64) -> Dataset:
    """Three axes of an accelerometer, made up: each motion has its pace, strength and direction."""
    random = np.random.default_rng(0)
    y = np.arange(count) % len(MOTIONS)
    time = np.arange(length)[None] / 32
    hertz = np.array([0.1, 2.0, 3.0, 7.0, 0.7])[y] * random.uniform(0.8, 1.2, count)
    strength = np.array([0.05, 0.5, 1.2, 0.9, 0.5])[y] * random.uniform(0.6, 1.4, count)
    phase = random.uniform(0, 2 * np.pi, count)
    wave = strength[:, None] * np.sin(2 * np.pi * hertz[:, None] * time + phase[:, None])
    direction = random.normal(size=(count, 1, 3)) + np.eye(3)[y % 3][:, None] * 2
    x = wave[..., None] * direction / 2 + 0.25 * random.normal(size=(count, length, 3))
    return from_arrays("motions", x, y, MOTIONS)


def recurrent(length: int = 64, units: int = 48) -> tf.keras.Model:
    """A convolution over time, and a recurrent layer after it."""
    inputs = tf.keras.Input((length, 3))
    x = L.Conv1D(units, 5, strides=2, activation="relu")(inputs)
    x = L.LSTM(units)(x)
    return tf.keras.Model(inputs, L.Dense(len(MOTIONS), "softmax")(x))


def pairs(count: int = 3000) -> Dataset:
    """Two digits: which of them is larger (the second, or not), and what they add up to."""
    random = np.random.default_rng(0)
    images, digits = digit_images()
    left, right = random.integers(0, len(images), (2, count))
    x = {"left": images[left], "right": images[right]}
    y = {"second": (digits[right] > digits[left]).astype(int), "sum": digits[left] + digits[right]}
    return from_arrays("pairs", x, {**y, "sum": y["sum"].astype(np.float32)})


def two_heads(width: int = 96) -> tf.keras.Model:
    """One network reads both digits; two heads answer."""
    left, right = tf.keras.Input((8, 8, 1), name="left"), tf.keras.Input((8, 8, 1), name="right")
    reads = [L.Conv2D(24, 3, activation="relu"), L.Flatten(), L.Dense(width, "relu")]
    seen = []
    for x in (left, right):
        for layer in reads:
            x = layer(x)
        seen.append(x)
    x = L.Dense(width, "relu")(L.Concatenate()(seen))
    second = L.Dense(1, "sigmoid", name="second")(x)
    return tf.keras.Model([left, right], [second, L.Dense(1, name="sum")(x)])


def own_loop(model: tf.keras.Model, train: Any, callbacks: list[Any], batches: Any) -> None:
    """Training with label smoothing and a limit to the gradient's norm, written out. `callbacks`
    are what pruning needs, so that the same loop fine-tunes."""
    optimizer = tf.keras.optimizers.Adam(train.learning_rate)
    loss_of = tf.keras.losses.CategoricalCrossentropy(label_smoothing=0.1)

    @tf.function
    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = loss_of(tf.one_hot(y, outputs.shape[-1]), outputs) + sum(model.losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        gradients, _ = tf.clip_by_global_norm(gradients, 1.0)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    told = tf.keras.callbacks.CallbackList(callbacks, model=model)
    told.on_train_begin()
    for epoch in range(train.epochs):
        told.on_epoch_begin(epoch)
        for number, (x, y, *_) in enumerate(batches):
            told.on_train_batch_begin(number)
            loss = step(x, y)
            told.on_train_batch_end(number, {"loss": float(loss)})
        told.on_epoch_end(epoch, {"loss": float(loss)})
    told.on_train_end()


def digit_files() -> Dataset:
    """The digits as PNG files, a folder for each, which stream as a user's own would."""
    folder = Path(tempfile.gettempdir(), "edgesparse-digit-files")
    images, digits = digit_images()
    for number, (image, digit) in enumerate(zip(images, digits, strict=True)):
        file = folder / "digits" / str(digit) / f"{number}.png"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = tf.cast(tf.round(image * 255), tf.uint8)
            file.write_bytes(tf.io.encode_png(pixels).numpy())
    return image_folder("digits", folder, (16, 16, 1))
