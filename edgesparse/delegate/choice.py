"""Chooses the files that the delegate runs on a CPU, by their zeros."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesparse.delegate.constants import Cpu
from edgesparse.delegate.cost import INPUTS
from edgesparse.spec.sparsify import AUTO_MULTIPLE

MIN_ZEROS = {False: 0.5, True: 0.7}
"""Share of zeros from which the delegate counts a node as sparse: with matrix tiles (AMX), whose
dense products are faster, more."""

TIMED_BETWEEN = (0.7, 1.3)
"""Predicted speed-ups between which a file is timed with and without the delegate, since
predictions can be that far off: below it is not tried, above it is used."""


@dataclass(frozen=True)
class ChannelMultiple:
    """Channel pruning leaves widths that are multiples of `number`; `why`, for messages."""

    number: int = AUTO_MULTIPLE
    why: str = "the vector length of common kernels"


WIDEST = 16
"""Largest multiple: coarser steps would miss budgets."""


def channel_multiple(cpu: Cpu | None, *, every_file: bool = False) -> ChannelMultiple:
    """Return the multiple of channels whose int8 kernels waste nothing on a CPU.

    Args:
        cpu: None where nothing is known of it, or an accelerator runs the files.
        every_file: the delegate runs every int8 file, those without zeros too.
    """
    if cpu is None:
        return ChannelMultiple()
    if every_file:
        return ChannelMultiple(4, "the delegate's groups of channels")
    outputs = min(WIDEST, cpu.dense_tile[1])
    return ChannelMultiple(outputs, f"the tiles of XNNPACK's int8 kernels on this CPU ({cpu.name})")


def has_enough_zeros(weights: Iterable[NDArray[np.int8]], min_zeros: float) -> bool:
    """Return whether the delegate is expected to run a file faster than XNNPACK.

    Args:
        weights: int8 weights of its convolutions and fully connected layers,
            [outputs, ..., inputs].
        min_zeros: share of them that lies in blocks which the kernels skip: 4 inputs of an output,
            on every CPU.
    """
    empty = total = 0
    for values in weights:
        total += values.size
        # A last block of fewer inputs counts as it is.
        starts = np.arange(0, values.shape[-1], INPUTS)
        used = np.add.reduceat(values != 0, starts, axis=-1, dtype=np.int64)
        sizes = np.diff([*starts, values.shape[-1]])
        empty += int(((used == 0) * sizes).sum())
    return total > 0 and empty >= min_zeros * total


def is_tried(offer: Mapping[str, Any], weights: Sequence[NDArray[np.int8]]) -> bool:
    """Return whether a file is tried with the delegate: one with enough zeros for the offer's
    `min_zeros`; without it, every file with int8 weights."""
    least = offer.get("min_zeros")
    return bool(weights) if least is None else has_enough_zeros(weights, least)
