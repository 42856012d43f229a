"""Tables: rows of a CSV or TSV file, columns by their names."""

from __future__ import annotations

import csv as reader
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgesparse.data import Dataset, from_splits, transforms
from edgesparse.data.splits import Order, places_of
from edgesparse.spec.errors import UsageError, did_you_mean

MAX_CATEGORIES = 1000


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
    """x float32 [columns]: numbers, and for each category of a categorical column a 0 or 1; y the
    target's labels where it holds texts or is named categorical, else its numbers.

    Args:
        path: the file, relative to the YAML file; its first line names the columns.
        features: columns to take; default: all but the target.
        categorical: columns whose numbers are names; those with texts are anyway.
        standardize: numbers become (value - mean) / deviation, both of the training split.
        split: `random`, labels class by class; or `time`: rows are in the order of their time, the
            first 70 % are to train with, the last 20 % to test.
        window: with `split: time`, a sample is so many rows one after another, x float32
            [window, columns], and y the target of its last row; no row is in two splits.

    Raises:
        UsageError: the file or an argument is wrong; the message names row and column.
    """
    if window is not None and (split != "time" or window < 1):
        raise UsageError(f"{path}: window is a number of rows, and goes with 'split: time'")
    names, rows = _read(base / path, path, separator)
    chosen = list(features) or [name for name in names if name != target]
    for name in [target, *chosen, *categorical]:
        if name not in names:
            raise UsageError(f"{path}: no column {name!r}{did_you_mean(name, names)}")
    table = dict(zip(names, zip(*rows, strict=True), strict=True))
    columns = {name: table[name] for name in [target, *chosen]}
    y, classes = _target(path, target, columns[target], target in categorical)
    places = places_of(path, y, seed, split)
    parts = [
        _feature(path, n, columns[n], n in categorical, standardize, places[0]) for n in chosen
    ]
    x = np.concatenate([values for values, _ in parts], axis=1)
    train, validation, test = (_windows(path, x[place], y[place], window) for place in places)
    raw = transforms.columns([done for _, done in parts], separator, window)
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
        raise UsageError(f"{path}: needs a line of column names, and rows")
    names, *rows = lines
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise UsageError(f"{path}: row {number} has {len(row)} values for {len(names)} columns")
    return [name.strip() for name in names], rows


def _numbers(path: str, name: str, texts: Sequence[str]) -> np.ndarray | None:
    """None where a column holds no numbers; UsageError where it holds some."""
    found, wrong = [], []
    for number, text in enumerate(texts, start=2):
        try:
            found.append(float(text))
        except ValueError:
            wrong.append((number, text))
    if not wrong:
        return np.array(found)
    if len(wrong) == len(texts) or len(wrong) > len(texts) / 2:
        return None
    number, text = wrong[0]
    raise UsageError(f"{path}: row {number}: {name} is {text!r}, and no number as elsewhere")


def _target(
    path: str, name: str, texts: Sequence[str], named: bool
) -> tuple[np.ndarray, list[str] | None]:
    numbers = None if named else _numbers(path, name, texts)
    if numbers is not None:
        return numbers.astype(np.float32), None
    classes = sorted(set(texts))
    if not 2 <= len(classes) <= MAX_CATEGORIES:
        raise UsageError(f"{path}: the target {name} has {len(classes)} different values")
    return np.array([classes.index(text) for text in texts]), classes


def _feature(
    path: str,
    name: str,
    texts: Sequence[str],
    named: bool,
    standardize: bool,
    training: np.ndarray,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Its values [rows, 1 or categories], and what was done for them."""
    numbers = None if named else _numbers(path, name, texts)
    if numbers is None:
        # Categories of the training split only: what is unknown there is unknown on the device.
        known = sorted({texts[place] for place in training})
        if len(known) > MAX_CATEGORIES:
            raise UsageError(f"{path}: the column {name} has more than {MAX_CATEGORIES} categories")
        values = np.array([[text == one for one in known] for text in texts], np.float32)
        return values, {"name": name, "categories": known}
    mean, deviation = 0.0, 1.0
    if standardize:
        mean, deviation = float(numbers[training].mean()), float(numbers[training].std()) or 1.0
    values = ((numbers - mean) / deviation).astype(np.float32)[:, None]
    return values, {"name": name, "mean": mean, "deviation": deviation}
