"""Images in one folder per class, or with a mask each, decoded and resized by tf.data as they are
needed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgesparse.data import (
    Dataset,
    Split,
    Tensor,
    X,
    Y,
    damaged_file,
    files_by_class,
    transforms,
)
from edgesparse.data.splits import places_of, stratified_indices
from edgesparse.spec.errors import UsageError

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
    """`path`/CLASS/IMAGE, split 70/10/20 by class; float32 [height, width, channels], 0 to 1.

    Args:
        path: the folder, relative to the YAML file.
        masks: a folder with a PNG of the same stem for each image of `path` itself, whose grey
            values are classes; then y is int64 [height, width], and `class_names` names them.
        splits: a CSV file with lines FILE,SPLIT, the file below `path` and one of train,
            validation and test.
        scale: what pixels of 0 to 255 are multiplied by. In a pipeline that says nothing it is 1
            where the model itself begins with a layer that scales them.
    """
    import tensorflow as tf

    if len(input_shape) != 3 or input_shape[2] not in (1, 3):
        raise UsageError(
            f"image-folder: input_shape is [height, width, 1 or 3], not {list(input_shape)}"
        )
    height, width, channels = input_shape

    def image(file: tf.Tensor) -> tf.Tensor:
        found = tf.io.decode_image(tf.io.read_file(file), channels, expand_animations=False)
        found = tf.image.resize(tf.cast(found, tf.float32) * scale, (height, width))
        return tf.ensure_shape(found, (height, width, channels))

    def mask(file: tf.Tensor) -> tf.Tensor:
        found = tf.io.decode_png(tf.io.read_file(file), 1)
        found = tf.image.resize(found, (height, width), method="nearest")[..., 0]
        return tf.ensure_shape(tf.cast(found, tf.int64), (height, width))

    if masks is None:
        names, files, targets = files_by_class(base / path, path, SUFFIXES)
    else:
        names, files, targets = _masked(base, path, masks, class_names)
    if splits is not None:
        places = _listed(base, path, splits, files)
    elif masks is None:
        places = stratified_indices(targets, seed)
    else:
        places = places_of(path, np.zeros(len(files), np.float32), seed)

    def decode(file: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return image(file), target if masks is None else mask(target)

    def split(chosen: np.ndarray) -> Split:
        pairs = tf.data.Dataset.from_tensor_slices(([files[i] for i in chosen], targets[chosen]))
        return Split(len(chosen), pairs.map(decode, num_parallel_calls=tf.data.AUTOTUNE))

    train, validation, test = (split(chosen) for chosen in places)
    inputs = {X: Tensor(tuple(input_shape), "float32")}
    shape = () if masks is None else (height, width)
    target = {Y: Tensor(shape, "int64")}
    raw, name, named = {X: transforms.image(input_shape, scale)}, Path(path).name, tuple(names)
    decoded = dict(zip(files, targets, strict=True))
    damaged = damaged_file(files, base, lambda file: decode(tf.constant(file), decoded[file]))
    return Dataset(
        name, inputs, target, named, train, validation, test, transforms=raw, damaged=damaged
    )


def _masked(
    base: Path, path: str, masks: str, class_names: Sequence[str]
) -> tuple[list[str], list[str], np.ndarray]:
    if len(class_names) < 2:
        raise UsageError("image-folder: masks need class_names, for the values 0, 1 and so on")
    folder, found = base / path, []
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix.lower() in SUFFIXES:
            mask = base / masks / f"{file.stem}.png"
            if not mask.is_file():
                raise UsageError(f"{masks}: no mask {file.stem}.png for {file.name}")
            found.append((str(file), str(mask)))
    if not found:
        raise UsageError(f"{path}: needs images ({', '.join(SUFFIXES)}) beside the YAML file")
    files, targets = zip(*found, strict=True)
    return list(class_names), list(files), np.array(targets)


def _listed(
    base: Path, path: str, splits: str, files: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The places of each split's files, as a list says."""
    known = {str(Path(file).relative_to(base / path)): place for place, file in enumerate(files)}
    found: dict[str, list[int]] = {name: [] for name in _SPLITS}
    try:
        lines = list(csv.reader((base / splits).read_text(encoding="utf-8").splitlines()))
    except OSError as error:
        raise UsageError(f"{splits}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        if len(line) != 2 or line[0] not in known or line[1] not in found:
            raise UsageError(
                f"{splits}:{number}: write FILE,SPLIT, a file below {path} and one of "
                f"{', '.join(_SPLITS)}"
            )
        found[line[1]].append(known[line[0]])
    empty = [name for name, places in found.items() if not places]
    if empty:
        raise UsageError(f"{splits}: no file is in {empty[0]}")
    train, validation, test = (np.array(found[name]) for name in _SPLITS)
    return train, validation, test
