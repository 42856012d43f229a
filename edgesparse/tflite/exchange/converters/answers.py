"""The original's answers for inputs, which those of the converted file are compared with."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from typing import Any

REFERENCES = 4
"""Random inputs with the original's answers, and as many samples of the user."""
IMAGE_RANKS = (4, 5)
SEED = 0


class RefusedError(Exception):
    """A message for the user."""


def answers(
    inputs: Sequence[tuple[str, tuple[int, ...], Any]],
    outputs: Sequence[str],
    answer: Callable[[Sequence[Any]], list[Any]],
    samples: str,
) -> dict[str, Any]:
    """Return inputs, random ones and samples, with the original's outputs for them.

    Args:
        inputs: name, shape and dtype of each.
        samples: a .npy or .npz of inputs in their order; empty for none.

    Returns:
        "inputs": name and shape of each; "outputs": their names; "arrays": "input/NUMBER" and
        "output/NUMBER", [references, *shape].
    """
    rows = _random_rows(inputs) + (_sample_rows(inputs, samples) if samples else [])
    import numpy as np

    results = [answer(row) for row in rows]
    arrays = {f"input/{i}": np.stack(v) for i, v in enumerate(zip(*rows, strict=True))}
    arrays |= {f"output/{i}": np.stack(v) for i, v in enumerate(zip(*results, strict=True))}
    described = [{"name": name, "shape": shape} for name, shape, _ in inputs]
    return {"inputs": described, "outputs": list(outputs), "arrays": arrays}


def _random_rows(inputs: Sequence[tuple[str, tuple[int, ...], Any]]) -> list[list[Any]]:
    import numpy as np

    random = np.random.default_rng(SEED)
    return [
        [
            # Whole numbers may be rows of a table, which has at least two.
            (random.normal(size=shape) if np.dtype(dtype).kind == "f"
             else random.integers(0, 2, shape)).astype(dtype)
            for _, shape, dtype in inputs
        ]
        for _ in range(REFERENCES)
    ]  # fmt: skip


def _sample_rows(
    inputs: Sequence[tuple[str, tuple[int, ...], Any]], samples: str
) -> list[list[Any]]:
    """Return the first samples where they have the inputs' sizes: one that does not fit is an error
    where the samples are used."""
    import numpy as np

    try:
        loaded = np.load(samples, allow_pickle=False)
        arrays = [loaded] if isinstance(loaded, np.ndarray) else None
        if arrays is None:
            names = [name for name, _, _ in inputs]
            names = ["x"] if len(names) == 1 and "x" in loaded.files else names
            if not set(names) <= set(loaded.files):
                return []
            arrays = [loaded[name] for name in names]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return []
    fits = all(
        values.shape[1:] == shape[1:] and shape[:1] == (1,)
        for values, (_, shape, _) in zip(arrays, inputs, strict=False)
    )
    if not fits or len(arrays) != len(inputs):
        return []
    count = min(REFERENCES, *(len(values) for values in arrays))
    return [
        [
            values[n : n + 1].astype(dtype)
            for values, (_, _, dtype) in zip(arrays, inputs, strict=True)
        ]
        for n in range(count)
    ]


def cause_of(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"
