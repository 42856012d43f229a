"""Files of samples for a device: golden samples with Keras' outputs, to compare with; and test
samples, whose outputs the host evaluates.

Arrays are [n, ...], by the names of the model's inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray[Any, Any]]


def save_golden(
    path: Path, x: Arrays | np.ndarray[Any, Any], y: Arrays | np.ndarray[Any, Any]
) -> None:
    """Write inputs and the outputs that belong to them."""
    np.savez(path, **_numbered("x", x), **_numbered("y", y))


def save_samples(path: Path, x: Arrays | np.ndarray[Any, Any]) -> None:
    """Write inputs alone; their targets stay on this machine."""
    np.savez(path, **_numbered("x", x))


def read_arrays(path: Path, kind: str) -> dict[str, np.ndarray[Any, Any]]:
    """Read the inputs ("x") or outputs ("y") of such a file, by name."""
    with np.load(path, allow_pickle=False) as stored:
        return {str(name): stored[f"{kind}{i}"] for i, name in enumerate(stored[f"{kind}_names"])}


def _numbered(kind: str, arrays: Arrays | np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    named = arrays if isinstance(arrays, Mapping) else {kind: arrays}
    numbered = {f"{kind}{i}": values for i, values in enumerate(named.values())}
    return {f"{kind}_names": np.array(list(named)), **numbered}
