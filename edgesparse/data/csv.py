"""Tables: rows of a CSV or TSV file, columns by name."""

from __future__ import annotations

import csv as reader
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.data import Dataset, from_splits, transforms
from edgesparse.data.splits import Order, split_indices
from edgesparse.spec.errors import UsageError, did_you_mean

MAX_CATEGORIES = 1000
"""More texts are likely to be identifiers."""


def csv(
    path: str,
    base: Path,
    target: str,
    features: Sequence[str] = (),
    categorical: Sequence[str] = (),
    standardize: bool = True,
    separator: str = ",",
    seed: int = 0,
    split: Order = "random",
    window: int | None = None,
) -> Dataset:
    """Load x float32 [columns]: numbers, and one-hot encoded categories; y are labels if the target
    has texts or is listed as categorical, else its numbers.

    Args:
        path: the file, relative to the YAML file; its first line names the columns.
        features: columns to take; default: all but the target.
        categorical: columns whose numbers are categories, besides those with texts.
        standardize: numbers become (value - mean) / deviation, both of the training split.
        split: `random`, stratified by label; or `time`: rows are in the order of their time, the
            first 70 % for training, the last 20 % for testing.
        window: with `split: time`, a sample is this number of consecutive rows, x float32
            [window, columns], and y the target of its last row; no row is in two splits.

    Raises:
        UsageError: the file or an argument is invalid; the message names row and column.
    """
    if window is not None and (split != "time" or window < 1):
        raise UsageError(f"{path}: window must be a number of rows, with 'split: time'")
    names, rows = _read(base / path, path, separator)
    selected = list(features) or [name for name in names if name != target]
    for name in [target, *selected, *categorical]:
        if name not in names:
            raise UsageError(f"{path}: no column {name!r}{did_you_mean(name, names)}")
    table = dict(zip(names, zip(*rows, strict=True), strict=True))
    columns = {name: table[name] for name in [target, *selected]}
    y, classes = _target(path, target, columns[target], target in categorical)
    splits = split_indices(path, y, seed, split)
    encoded = [
        _feature(path, n, columns[n], n in categorical, standardize, splits[0]) for n in selected
    ]
    x = np.concatenate([values for values, _ in encoded], axis=1)
    train, validation, test = (_windows(path, x[rows], y[rows], window) for rows in splits)
    raw = transforms.columns([feature for _, feature in encoded], separator, window)
    return from_splits(Path(path).stem, train, validation, test, classes, raw)


def _windows(
    path: str, x: np.ndarray, y: np.ndarray, window: int | None
) -> tuple[np.ndarray, np.ndarray]:
    if window is None:
        return x, y
    if len(x) < window:
        raise UsageError(f"{path}: a split has {len(x)} rows, too few for a window of {window}")
    rows = np.lib.stride_tricks.sliding_window_view(x, window, axis=0)
    return np.ascontiguousarray(rows.transpose(0, 2, 1)), y[window - 1 :]


def _read(file: Path, path: str, separator: str) -> tuple[list[str], list[list[str]]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            lines = [line for line in reader.reader(opened, delimiter=separator) if line]
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file beside the YAML file") from None
    except (OSError, UnicodeDecodeError, reader.Error, TypeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    if len(lines) < 2:
        raise UsageError(f"{path}: needs a line of column names and rows")
    names, *rows = lines
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise UsageError(f"{path}: row {number} has {len(row)} values for {len(names)} columns")
    return [name.strip() for name in names], rows


def _numbers(path: str, name: str, texts: Sequence[str]) -> np.ndarray | None:
    """Parse a column of numbers.

    Returns:
        float64 [rows]; None if more than half of the values are texts.

    Raises:
        UsageError: some values are texts.
    """
    values, invalid = [], []
    for row, text in enumerate(texts, start=2):
        try:
            values.append(float(text))
        except ValueError:
            invalid.append((row, text))
    if not invalid:
        return np.array(values)
    if len(invalid) > len(texts) / 2:
        return None
    row, text = invalid[0]
    raise UsageError(f"{path}: row {row}: expected a number in column {name!r}, got {text!r}")


def _target(
    path: str, name: str, texts: Sequence[str], categorical: bool
) -> tuple[np.ndarray, list[str] | None]:
    numbers = None if categorical else _numbers(path, name, texts)
    if numbers is not None:
        return numbers.astype(np.float32), None
    classes = sorted(set(texts))
    if not 2 <= len(classes) <= MAX_CATEGORIES:
        raise UsageError(
            f"{path}: the target {name!r} has {len(classes)} classes; 2 to {MAX_CATEGORIES} are "
            "supported"
        )
    return np.array([classes.index(text) for text in texts]), classes


def _feature(
    path: str,
    name: str,
    texts: Sequence[str],
    categorical: bool,
    standardize: bool,
    training: np.ndarray,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a column's values float32 [rows, 1 or categories], and their transform."""
    numbers = None if categorical else _numbers(path, name, texts)
    if numbers is None:
        # Categories of the training split only: the device knows no others.
        categories = sorted({texts[row] for row in training})
        if len(categories) > MAX_CATEGORIES:
            raise UsageError(
                f"{path}: column {name!r} has {len(categories)} categories; the maximum is "
                f"{MAX_CATEGORIES}; leave it out of 'features'"
            )
        one_hot = [[text == category for category in categories] for text in texts]
        return np.array(one_hot, np.float32), {"name": name, "categories": categories}
    mean, deviation = 0.0, 1.0
    if standardize:
        mean, deviation = float(numbers[training].mean()), float(numbers[training].std()) or 1.0
    values = ((numbers - mean) / deviation).astype(np.float32)[:, None]
    return values, {"name": name, "mean": mean, "deviation": deviation}
