"""Chooses the files that the delegate runs on a CPU, by their zeros."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FOUR_BYTES = {"avx512_vnni", "avx_vnni", "asimddp"}
"""CPU flags, as Linux names them, of instructions that multiply four inputs at a time."""

MIN_ZEROS = {False: 0.5, True: 0.7}
"""Share of zeros from which the delegate counts a node as sparse: with matrix tiles (AMX), whose
dense products are faster, more."""


@dataclass(frozen=True)
class Threshold:
    """Limit for a file's zeros on a CPU: at least `min_zeros` of its weights lie in blocks of
    `block_inputs` inputs of an output that are all zero."""

    block_inputs: int
    min_zeros: float


def threshold(features: Iterable[str]) -> Threshold:
    """Return the threshold for a CPU with these features, as Linux lists them."""
    flags = set(features)
    return Threshold(4 if flags & _FOUR_BYTES else 2, MIN_ZEROS["amx_int8" in flags])


def has_enough_zeros(weights: Iterable[NDArray[np.int8]], least: Threshold) -> bool:
    """Return whether the delegate is expected to run a file faster than XNNPACK.

    Args:
        weights: int8 weights of its convolutions and fully connected layers,
            [outputs, ..., inputs].
    """
    empty = total = 0
    for values in weights:
        total += values.size
        # A last block of fewer inputs counts as it is.
        starts = np.arange(0, values.shape[-1], least.block_inputs)
        used = np.add.reduceat(values != 0, starts, axis=-1, dtype=np.int64)
        sizes = np.diff([*starts, values.shape[-1]])
        empty += int(((used == 0) * sizes).sum())
    return total > 0 and empty >= least.min_zeros * total


def is_tried(offer: Mapping[str, Any], weights: Sequence[NDArray[np.int8]]) -> bool:
    """Return whether a file is tried with the delegate: one with enough zeros for the offer's
    `threshold`; without one, every file with int8 weights."""
    least = offer.get("threshold")
    return bool(weights) if least is None else has_enough_zeros(weights, Threshold(**least))
