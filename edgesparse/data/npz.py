"""Samples from a NumPy .npz file."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgesparse.data import Dataset, from_arrays, from_splits, transforms
from edgesparse.data.splits import Order
from edgesparse.spec.errors import UsageError

_SPLITS = ("train", "val", "test")


def npz(
    path: str,
    base: Path,
    class_names: Sequence[str] | None = None,
    scale: float = 1.0,
    seed: int = 0,
    split: Order = "random",
    gap: int = 0,
) -> Dataset:
    """Load arrays x and y, split 70/10/20; or x_train, y_train, x_val, y_val, x_test, y_test.
    With several inputs or outputs, x.NAME and y.NAME for each.

    Args:
        path: the file, relative to the YAML file.
        scale: samples are divided by it (255 for bytes).
        split, gap: of x and y; see `edgesparse.data.from_arrays`.

    Raises:
        UsageError: the file cannot be read or lacks an array.
    """
    file = base / path
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file beside the YAML file") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise UsageError(f"{path}: is not a .npz of plain arrays: {error}") from None
    name, raw = Path(path).stem, transforms.numbers(1 / scale)
    x, y = _by_name(arrays, "x"), _by_name(arrays, "y")
    if x is not None and y is not None:
        x = {key: v / scale for key, v in x.items()} if isinstance(x, dict) else x / scale
        return from_arrays(name, x, y, class_names, seed, transforms=raw, split=split, gap=gap)
    required = [f"{kind}_{split}" for split in _SPLITS for kind in ("x", "y")]
    if not set(required) <= set(arrays):
        raise UsageError(
            f"{path}: has {', '.join(sorted(arrays)) or 'no arrays'}; "
            f"needs x and y, or {', '.join(required)}; for several inputs or outputs x.NAME, y.NAME"
        )
    train, validation, test = (
        (arrays[f"x_{split}"] / scale, arrays[f"y_{split}"]) for split in _SPLITS
    )
    return from_splits(name, train, validation, test, class_names, raw)


def _by_name(arrays: dict[str, np.ndarray], kind: str) -> np.ndarray | dict[str, np.ndarray] | None:
    """Return the array called `kind`, or those called `kind.NAME` by their NAME."""
    several = {
        name.removeprefix(f"{kind}."): values
        for name, values in arrays.items()
        if name.startswith(f"{kind}.")
    }
    return arrays.get(kind) if kind in arrays else several or None
