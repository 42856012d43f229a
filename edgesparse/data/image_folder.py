"""Images in one folder per class, or with a mask each, decoded on the fly by tf.data."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgesparse.data import (
    Dataset,
    Split,
    Tensor,
    X,
    Y,
    damaged_file_finder,
    transforms,
)
from edgesparse.data.splits import Indices, files_by_class, split_indices, stratified_indices
from edgesparse.spec.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
_SPLITS = ("train", "validation", "test")


def image_folder(
    path: str,
    base: Path,
    input_shape: Sequence[int] = (96, 96, 3),
    masks: str | None = None,
    class_names: Sequence[str] = (),
    splits: str | None = None,
    seed: int = 0,
    scale: float = 1 / 255,
) -> Dataset:
    """Load `path`/CLASS/IMAGE, split 70/10/20 by class, as float32 [height, width, channels].

    Args:
        path: the folder, relative to the YAML file.
        masks: a folder with a PNG of the same stem for each image of `path` itself, whose grey
            values are classes; then y is int64 [height, width], and `class_names` names them.
        splits: a CSV file with lines FILE,SPLIT, where FILE is relative to `path` and SPLIT is
            train, validation or test.
        scale: factor of pixels 0 to 255. A pipeline's default is 1 if the model itself begins with
            a layer that scales them.

    Raises:
        UsageError: a folder, a file or an argument is invalid.
    """
    import tensorflow as tf

    _check_shape(input_shape)
    if masks is None:
        names, files, targets = files_by_class(base / path, path, SUFFIXES)
    else:
        names, files, targets = _masked(base, path, masks, class_names)
    if splits is not None:
        indices_by_split = _read_splits(base, path, splits, files)
    elif masks is None:
        indices_by_split = stratified_indices(targets, seed)
    else:
        indices_by_split = split_indices(path, np.zeros(len(files), np.float32), seed)

    def decode(file: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = decode_image(tf.io.read_file(file), input_shape, scale)
        return image, target if masks is None else _read_mask(target, input_shape[:2])

    def split(indices: np.ndarray) -> Split:
        pairs = tf.data.Dataset.from_tensor_slices(([files[i] for i in indices], targets[indices]))
        return Split(len(indices), pairs.map(decode, num_parallel_calls=tf.data.AUTOTUNE))

    train, validation, test = map(split, indices_by_split)
    shape = () if masks is None else tuple(input_shape[:2])
    by_file = dict(zip(files, targets, strict=True))
    return Dataset(
        Path(path).name,
        {X: Tensor(tuple(input_shape), "float32")},
        {Y: Tensor(shape, "int64")},
        tuple(names),
        train,
        validation,
        test,
        transforms={X: transforms.image(input_shape, scale)},
        find_damaged=damaged_file_finder(files, base, lambda file: decode(file, by_file[file])),
    )


def _check_shape(shape: Sequence[int]) -> None:
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise UsageError(
            f"image-folder: input_shape must be [height, width, 1 or 3], not {list(shape)}"
        )


def decode_image(content: tf.Tensor, shape: Sequence[int], scale: float) -> tf.Tensor:
    """Decode an image file's bytes as float32 of a shape [height, width, channels]."""
    import tensorflow as tf

    pixels = tf.io.decode_image(content, shape[2], expand_animations=False)
    pixels = tf.image.resize(tf.cast(pixels, tf.float32) * scale, shape[:2])
    return tf.ensure_shape(pixels, shape)


def _read_mask(file: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    import tensorflow as tf

    classes = tf.io.decode_png(tf.io.read_file(file), 1)
    classes = tf.image.resize(classes, shape, method="nearest")[..., 0]
    return tf.ensure_shape(tf.cast(classes, tf.int64), shape)


def _masked(
    base: Path, path: str, masks: str, class_names: Sequence[str]
) -> tuple[list[str], list[str], np.ndarray]:
    """Return class names, images and their masks."""
    if len(class_names) < 2:
        raise UsageError("image-folder: masks need class_names, for the values 0, 1 and so on")
    folder, pairs = base / path, []
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix.lower() in SUFFIXES and file.is_file():
            mask = base / masks / f"{file.stem}.png"
            if not mask.is_file():
                raise UsageError(f"{masks}: no mask {file.stem}.png for {file.name}")
            pairs.append((str(file), str(mask)))
    if not pairs:
        raise UsageError(f"{path}: needs images ({', '.join(SUFFIXES)}) beside the YAML file")
    files, targets = zip(*pairs, strict=True)
    return list(class_names), list(files), np.array(targets)


def _read_splits(base: Path, path: str, splits: str, files: Sequence[str]) -> Indices:
    """Read the indices of each split's files from a CSV file."""
    indices = {str(Path(file).relative_to(base / path)): i for i, file in enumerate(files)}
    by_split: dict[str, list[int]] = {name: [] for name in _SPLITS}
    try:
        lines = list(csv.reader((base / splits).read_text(encoding="utf-8").splitlines()))
    except OSError as error:
        raise UsageError(f"{splits}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        if len(line) != 2 or line[0] not in indices or line[1] not in by_split:
            raise UsageError(
                f"{splits}:{number}: expected FILE,SPLIT: an image below {path} and one of "
                f"{', '.join(_SPLITS)}"
            )
        by_split[line[1]].append(indices[line[0]])
    for name, selected in by_split.items():
        if not selected:
            raise UsageError(f"{splits}: split {name} has no files")
    train, validation, test = (np.array(by_split[name]) for name in _SPLITS)
    return train, validation, test
