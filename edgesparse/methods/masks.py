"""Magnitude masks of kernels, and a callback that applies them in training.

It does for every kind of layer what TensorFlow's pruning toolkit does in wrapper layers, which it
has for few kinds: the mask is updated by the schedule, and multiplied into the kernel before each
step, so that a masked weight can come back until the schedule ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.methods.network.keep_mask import keep_mask, split_blocks
from edgesparse.spec.sparsify import BLOCK, Pattern


def magnitude_mask(kernel: np.ndarray, sparsity: float, pattern: Pattern) -> np.ndarray:
    """Return the weights of a Keras kernel [..., inputs, outputs] that stay: bool of its shape.

    Blocks run along the inputs and are ranked by mean magnitude, as in tfmot; 2:4 keeps the two
    largest of every four inputs and ignores `sparsity`.
    """
    return keep_mask(np.abs(kernel), sparsity, pattern)


def block_sizes(kernel: np.ndarray, pattern: Pattern) -> np.ndarray:
    """Return the magnitudes of weights, or the means of blocks, flat."""
    size = np.abs(kernel)
    if pattern in ("block-1x4", "block-1x16"):
        size = split_blocks(size, BLOCK[pattern]).mean(axis=-2)
    return size.ravel()


@dataclass
class Masked:
    """A kernel with its pattern, schedule and mask, which has the kernel's shape."""

    variable: Any
    pattern: Pattern = "unstructured"
    schedule: Any = None
    """A schedule of the toolkit; None for a constant mask."""
    mask: Any = field(default=None)

    def prune(self, sparsity: float) -> None:
        """Update the mask to a sparsity, and apply it."""
        stays = magnitude_mask(self.variable.numpy(), sparsity, self.pattern)
        self.mask = tf.constant(stays, self.variable.dtype)
        self.apply()

    def keep_zeros(self) -> None:
        """Set the mask to the present zeros."""
        self.mask = tf.constant(self.variable.numpy() != 0, self.variable.dtype)

    def apply(self) -> None:
        if self.mask is not None:
            self.variable.assign(self.variable * self.mask)

    def step(self, number: int) -> None:
        """Update or apply the mask before a training step, counted from 0."""
        if self.schedule is not None:
            due, sparsity = self.schedule(tf.constant(number, tf.int64))
            if bool(due):
                self.prune(float(np.float64(sparsity)))
                return
        self.apply()


class HoldMasks(tf.keras.callbacks.Callback):
    """Applies the masks of kernels in training."""

    def __init__(self, masked: Sequence[Masked]) -> None:
        super().__init__()
        self.masked = tuple(masked)
        self.number = 0

    def state(self) -> dict[str, Any]:
        masks = {
            str(k): masked.mask for k, masked in enumerate(self.masked) if masked.mask is not None
        }
        return {"number": self.number, **masks}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.number = int(state["number"])
        for index, masked in enumerate(self.masked):
            if str(index) in state:
                masked.mask = tf.constant(state[str(index)], masked.variable.dtype)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        for masked in self.masked:
            masked.step(self.number)
        self.number += 1

    def on_test_begin(self, logs: Any = None) -> None:
        """Apply masks before validation: the optimizer's last step moved masked weights."""
        for masked in self.masked:
            masked.apply()
