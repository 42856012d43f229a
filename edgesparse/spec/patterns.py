"""Patterns of zeros in a kernel: single weights, blocks of outputs x inputs, 2 of every 4."""

from __future__ import annotations

import re
from typing import Literal, get_args

Block = Literal["block-1x2", "block-1x4", "block-1x16", "block-2x4", "block-4x4"]
Pattern = Literal[
    "unstructured", "block-1x2", "block-1x4", "block-1x16", "block-2x4", "block-4x4", "2:4"
]
BLOCKS: tuple[Block, ...] = get_args(Block)
Distribution = Literal["uniform", "global", "erk", "lamp"]
"""How zeros are distributed over layers; see methods/network/distribution.py."""
_BLOCK = re.compile(r"block-(\d+)x(\d+)")


def block_shape(pattern: str) -> tuple[int, int]:
    """Return the (outputs, inputs) of a pattern's blocks: (1, 1) for single weights, (1, 4) for the
    fours of 2:4, two of which stay.

    A block lies in one position of a convolution's kernel, along its channels; at the edge of a
    kernel that it does not divide, a block is smaller.

    >>> block_shape("block-2x4")
    (2, 4)
    """
    if pattern == "2:4":
        return 1, 4
    match = _BLOCK.fullmatch(pattern)
    return (int(match[1]), int(match[2])) if match else (1, 1)
