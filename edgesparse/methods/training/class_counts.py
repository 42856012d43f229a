"""How often each class occurs in data."""

from __future__ import annotations

import numpy as np

from edgesparse.data import Dataset, Split
from edgesparse.methods.training.recipe import Recipe
from edgesparse.spec.safe.text import listed

COUNTED = 100_000
"""Of more samples the first are counted."""
_NAMED = 4


def label_counts(split: Split, classes: int, most: int = COUNTED) -> np.ndarray:
    """int64 [classes]; targets are labels, or one of several ones."""
    counts = np.zeros(classes, np.int64)
    labels = split.samples.map(lambda x, y, *_: y).take(most)
    for y in labels.batch(4096):
        values = y.numpy()
        found = values.argmax(axis=1) if values.ndim == 2 and values.shape[1] > 1 else values
        np.add.at(counts, found.reshape(-1).astype(np.int64), 1)
    return counts


def missing(dataset: Dataset, recipe: Recipe) -> list[str]:
    """What to say of classes that never occur in a split, where it can be seen whole."""
    if recipe.is_multi_output or recipe.resolved["name"] != "classification":
        return []
    names = list(map(str, recipe.resolved["classes"]))
    lines = []
    for place in ("train", "validation", "test"):
        split = getattr(dataset, place)
        if split.count > COUNTED:
            continue
        counts = label_counts(split, len(names))
        never = [name for name, count in zip(names, counts, strict=True) if not count]
        if never:
            said = {"train": "training", "validation": "validation", "test": "test"}[place]
            what = "classes" if len(never) > 1 else "class"
            lines.append(
                f"the {what} {listed(never, _NAMED)} never occur"
                f"{'s' * (len(never) == 1)} in the {said} data"
            )
    return lines
