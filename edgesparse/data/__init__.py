"""Typed datasets: three splits of samples with labels. One file per dataset or format.

Each loader is a function that returns a `Dataset`; `from_arrays` makes one from NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgesparse.spec.code import references
from edgesparse.spec.errors import EdgesparseError, UsageError
from edgesparse.spec.pipeline import Source

if TYPE_CHECKING:
    import tensorflow as tf

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Split:
    """`count` pairs (x, label) in a fixed order: x as the dataset says, label an int64 scalar."""

    count: int
    samples: tf.data.Dataset


@dataclass(frozen=True)
class Dataset:
    """A classification dataset.

    `input_shape` is one sample's, without the batch; labels count from 0 in `class_names`.
    """

    name: str
    input_shape: tuple[int, ...]
    dtype: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split


def arrays(split: Split, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` samples (or all): x [n, *input_shape] and labels int64 [n]."""
    count = min(count, split.count)
    if count == 0:
        raise EdgesparseError("the dataset has an empty split; give it more samples")
    x, y = next(iter(split.samples.take(count).batch(count)))
    return x.numpy(), y.numpy().astype(np.int64)


def representative(dataset: Dataset, count: int) -> np.ndarray:
    """Samples for calibrating a quantizer, float32 [n, *input_shape]; from training data only."""
    return arrays(dataset.train, count)[0]


def stratified_indices(
    labels: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shuffled train, validation and test indices with each class's share kept."""
    from sklearn.model_selection import train_test_split

    everything = np.arange(len(labels))
    # By class: with few samples a class could be missing from a split.
    try:
        rest, test = train_test_split(
            everything, test_size=TEST_SHARE, stratify=labels, random_state=seed
        )
        train, validation = train_test_split(
            rest,
            test_size=VALIDATION_SHARE / (1 - TEST_SHARE),
            stratify=labels[rest],
            random_state=seed,
        )
    except ValueError as error:
        raise EdgesparseError(f"the data cannot be split by class: {error}") from None
    return train, validation, test


def from_arrays(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
) -> Dataset:
    """A dataset from x [n, ...] and integer labels y [n], split 70/10/20 by class."""
    x, y = np.asarray(x), np.asarray(y)
    _check(name, x, y)
    train, validation, test = stratified_indices(y, seed)
    return from_splits(
        name, (x[train], y[train]), (x[validation], y[validation]), (x[test], y[test]), class_names
    )


def from_splits(
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """A dataset from three ready splits, each (x [n, ...], integer labels [n])."""
    import tensorflow as tf

    splits = []
    for x, y in (train, validation, test):
        _check(name, x, y)
        if x.shape[1:] != train[0].shape[1:]:
            raise EdgesparseError(
                f"{name}: samples of shape {x.shape[1:]} and {train[0].shape[1:]} in one dataset"
            )
        # Kept on the host as NumPy until TensorFlow asks for it.
        pairs = tf.data.Dataset.from_tensor_slices((x.astype(np.float32), y.astype(np.int64)))
        splits.append(Split(len(x), pairs))
    classes = int(max(y.max() for _, y in (train, validation, test))) + 1
    names = tuple(class_names) if class_names else tuple(str(i) for i in range(classes))
    if len(names) < classes:
        raise EdgesparseError(
            f"{name}: labels go up to {classes - 1}, but {len(names)} class names"
        )
    return Dataset(name, tuple(train[0].shape[1:]), "float32", names, *splits)


def _check(name: str, x: np.ndarray, y: np.ndarray) -> None:
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or len(x) == 0:
        raise EdgesparseError(
            f"{name}: x {x.shape} and y {y.shape} do not go together; "
            "x is [samples, ...] and y is [samples]"
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise EdgesparseError(f"{name}: labels must be integers from 0, not {y.dtype}")
    if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
        raise EdgesparseError(f"{name}: samples must be numbers, not {x.dtype}")


def load(source: Source, base: Path) -> Dataset:
    """The dataset that a pipeline names; `base` is the folder of its YAML file."""
    target = references.find("data", source.name, source.ref, base)
    dataset = references.call(target, source.args, {"base": base})
    if not isinstance(dataset, Dataset):
        raise UsageError(
            f"{target.label} returned {type(dataset).__name__}; it must return an "
            "edgesparse.data.Dataset (edgesparse.data.from_arrays makes one)"
        )
    return dataset
