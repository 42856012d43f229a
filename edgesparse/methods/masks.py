"""Masks by magnitude: which weights of one kernel stay, for a pattern and a sparsity; and how they
are held while a model trains.

What TensorFlow's pruning toolkit does inside of a wrapper layer, which it has for few kinds of
layers: the mask is made anew when the schedule says so, and multiplied into the kernel before each
step, so that a weight that was taken may come back until the schedule ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from edgesparse.methods.network.keep_mask import in_blocks, kept
from edgesparse.spec.sparsify import BLOCK, Pattern


def magnitude_mask(kernel: np.ndarray, sparsity: float, pattern: Pattern) -> np.ndarray:
    """Which weights of a Keras kernel [..., inputs, outputs] stay: bool of its shape.

    Blocks run along the inputs and go by their mean magnitude, as tfmot's do; 2:4 keeps the two
    largest of every four inputs, whatever `sparsity` says.
    """
    return kept(np.abs(kernel), sparsity, pattern)


def block_sizes(kernel: np.ndarray, pattern: Pattern) -> np.ndarray:
    """What weights, or blocks of them, are told apart by: flat."""
    size = np.abs(kernel)
    if pattern in ("block-1x4", "block-1x16"):
        size = in_blocks(size, BLOCK[pattern]).mean(axis=-2)
    return size.ravel()


@dataclass
class Masked:
    """A kernel, its pattern, and when its mask is made; `mask` is of the kernel's shape."""

    variable: Any
    pattern: Pattern = "unstructured"
    schedule: Any = None
    """One of the toolkit's; None for a mask that stays as it is."""
    mask: Any = field(default=None)

    def prune(self, sparsity: float) -> None:
        """Make the mask anew, and apply it."""
        stays = magnitude_mask(self.variable.numpy(), sparsity, self.pattern)
        self.mask = tf.constant(stays, self.variable.dtype)
        self.apply()

    def keep_zeros(self) -> None:
        """Let the zeros that there are be the mask."""
        self.mask = tf.constant(self.variable.numpy() != 0, self.variable.dtype)

    def apply(self) -> None:
        if self.mask is not None:
            self.variable.assign(self.variable * self.mask)

    def step(self, number: int) -> None:
        """What happens before a training step, counted from 0."""
        if self.schedule is not None:
            due, sparsity = self.schedule(tf.constant(number, tf.int64))
            if bool(due):
                self.prune(float(np.float64(sparsity)))
                return
        self.apply()


class HoldMasks(tf.keras.callbacks.Callback):
    """Keeps the masks of kernels while a model is fitted."""

    def __init__(self, masked: Sequence[Masked]) -> None:
        super().__init__()
        self.masked = tuple(masked)
        self.number = 0

    def state(self) -> dict[str, Any]:
        masks = {str(k): one.mask for k, one in enumerate(self.masked) if one.mask is not None}
        return {"number": self.number, **masks}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.number = int(state["number"])
        for place, one in enumerate(self.masked):
            if str(place) in state:
                one.mask = tf.constant(state[str(place)], one.variable.dtype)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        for one in self.masked:
            one.step(self.number)
        self.number += 1

    def on_test_begin(self, logs: Any = None) -> None:
        """Before validation: the step before it moved the masked weights once more."""
        for one in self.masked:
            one.apply()
