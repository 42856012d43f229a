"""Images in one folder per class, decoded and resized by tf.data as they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgesparse.data import Dataset, Split, Tensor, X, Y, stratified_indices
from edgesparse.spec.errors import UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


def image_folder(
    path: str, base: Path, input_shape: Sequence[int] = (96, 96, 3), seed: int = 0
) -> Dataset:
    """`path`/CLASS/IMAGE, split 70/10/20 by class; float32 [height, width, channels], 0 to 1.

    Args:
        path: the folder, relative to the YAML file.
    """
    import tensorflow as tf

    if len(input_shape) != 3 or input_shape[2] not in (1, 3):
        raise UsageError(
            f"image-folder: input_shape is [height, width, 1 or 3], not {list(input_shape)}"
        )
    folder = base / path
    if not folder.is_dir():
        raise UsageError(f"{path}: no such folder beside the YAML file")
    class_names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    files, labels = [], []
    for label, name in enumerate(class_names):
        images = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES)
        files += [str(p) for p in images]
        labels += [label] * len(images)
    if len(class_names) < 2 or not files:
        raise UsageError(f"{path}: needs a folder of images ({', '.join(SUFFIXES)}) per class")

    height, width, channels = input_shape

    def decode(file: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_image(tf.io.read_file(file), channels, expand_animations=False)
        image = tf.image.resize(tf.cast(image, tf.float32) / 255.0, (height, width))
        return tf.ensure_shape(image, (height, width, channels)), label

    def split(indices: np.ndarray) -> Split:
        pairs = tf.data.Dataset.from_tensor_slices(
            ([files[i] for i in indices], np.asarray(labels, np.int64)[indices])
        )
        return Split(len(indices), pairs.map(decode, num_parallel_calls=tf.data.AUTOTUNE))

    train, validation, test = (split(i) for i in stratified_indices(np.asarray(labels), seed))
    inputs = {X: Tensor(tuple(input_shape), "float32")}
    targets = {Y: Tensor((), "int64")}
    return Dataset(Path(path).name, inputs, targets, tuple(class_names), train, validation, test)
