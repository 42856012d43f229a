"""Splits of samples into training, validation and test data; files and their classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from edgesparse.spec.errors import EdgesparseError, UsageError

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2
Order = Literal["random", "time"]
Indices = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of training, validation and test samples."""


def split_indices(
    name: str, targets: np.ndarray, seed: int, split: Order = "random", gap: int = 0
) -> Indices:
    """Return training, validation and test indices for targets [n, ...].

    Labels are stratified, other targets shuffled; with `split="time"` the order is kept and `gap`
    samples are left out between two splits.

    Raises:
        UsageError: `split` has another value.
        EdgesparseError: there are too few samples.
    """
    if split not in get_args(Order):
        raise UsageError(f"split: must be 'random' or 'time', not {split!r}")
    if split == "time":
        return _ordered_indices(name, len(targets), gap)
    if is_label(targets):
        return stratified_indices(targets.reshape(len(targets)), seed)
    return random_indices(name, len(targets), seed)


def stratified_indices(labels: np.ndarray, seed: int = 0) -> Indices:
    """Return shuffled training, validation and test indices that keep each class's share.

    Raises:
        EdgesparseError: a class has too few samples.
    """
    from sklearn.model_selection import train_test_split

    indices = np.arange(len(labels))
    # By class: with few samples a class could be missing from a split.
    try:
        rest, test = train_test_split(
            indices, test_size=TEST_SHARE, stratify=labels, random_state=seed
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


def random_indices(name: str, count: int, seed: int) -> Indices:
    """Return shuffled training, validation and test indices of `count` samples."""
    order = np.random.default_rng(seed).permutation(count)
    test, validation = _sizes(name, count)
    return order[test + validation :], order[test : test + validation], order[:test]


def _ordered_indices(name: str, count: int, gap: int) -> Indices:
    test, validation = _sizes(name, count)
    order = np.arange(count)
    rest, last = order[: count - test], order[count - test + gap :]
    parts = rest[: len(rest) - validation], rest[len(rest) - validation + gap :], last
    if gap < 0 or any(len(part) == 0 for part in parts):
        raise EdgesparseError(f"{name}: {count} samples are too few for a gap of {gap}")
    return parts


def _sizes(name: str, count: int) -> tuple[int, int]:
    """Return the sizes of the test and the validation split."""
    test, validation = round(count * TEST_SHARE), round(count * VALIDATION_SHARE)
    if not test or not validation:
        raise EdgesparseError(f"{name}: {count} samples are too few for three splits")
    return test, validation


def is_integer(values: np.ndarray) -> bool:
    return values.dtype.kind in "iu"


def is_label(values: np.ndarray) -> bool:
    return is_integer(values) and values.size == len(values)


def files_by_class(
    folder: Path, path: str, suffixes: Sequence[str]
) -> tuple[list[str], list[str], np.ndarray]:
    """List class names, files and their labels int64 [files] of a folder with a folder per class.
    `path` is the folder in the YAML file, for messages. Raises UsageError."""
    if not folder.is_dir():
        raise UsageError(f"{path}: no such folder beside the YAML file")
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        entries = (folder / name).iterdir()
        of_class = sorted(p for p in entries if p.suffix.lower() in suffixes and p.is_file())
        files += [str(p) for p in of_class]
        labels += [label] * len(of_class)
    if len(names) < 2 or not files:
        raise UsageError(f"{path}: needs a folder of files ({', '.join(suffixes)}) per class")
    return names, files, np.array(labels, np.int64)
