"""Class frequencies of datasets."""

from __future__ import annotations

import numpy as np

from edgesparse.data import Dataset, Split
from edgesparse.methods.training.recipe import Recipe
from edgesparse.spec.safe.text import listed

COUNTED = 100_000
"""Most samples that are counted, the first of a split."""
_NAMED = 4


def label_counts(split: Split, classes: int, most: int = COUNTED) -> np.ndarray:
    """Return the number of samples of each class, int64 [classes]; targets are labels or
    one-hot."""
    counts = np.zeros(classes, np.int64)
    labels = split.samples.map(lambda x, y, *_: y).take(most)
    for y in labels.batch(4096):
        values = y.numpy()
        label_ids = values.argmax(axis=1) if values.ndim == 2 and values.shape[1] > 1 else values
        np.add.at(counts, label_ids.reshape(-1).astype(np.int64), 1)
    return counts


def missing_classes(dataset: Dataset, recipe: Recipe) -> list[str]:
    """Return warnings about classes that never occur in a split of at most COUNTED samples."""
    if recipe.is_multi_output or recipe.resolved["name"] != "classification":
        return []
    names = list(map(str, recipe.resolved["classes"]))
    lines = []
    for split_name in ("train", "validation", "test"):
        split = getattr(dataset, split_name)
        if split.count > COUNTED:
            continue
        counts = label_counts(split, len(names))
        never = [name for name, count in zip(names, counts, strict=True) if not count]
        if never:
            label = {"train": "training", "validation": "validation", "test": "test"}[split_name]
            what = "classes" if len(never) > 1 else "class"
            lines.append(
                f"the {what} {listed(never, _NAMED)} never occur"
                f"{'s' * (len(never) == 1)} in the {label} data"
            )
    return lines
